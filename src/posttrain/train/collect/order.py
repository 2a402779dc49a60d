"""Which examples a step trains on: a pure function of (seed, position), so that a resumed run needs nothing else."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def step_indices(examples: int, per_step: int, step: int, seed: int, steps: int = 1) -> list[int]:
    """The examples of `steps` steps of `per_step`, from `step` on: epochs are permutations laid end to end, each of its
    own (seed, epoch).
    """
    positions = range(step * per_step, (step + steps) * per_step)
    return [int(_permutation(examples, position // examples, seed)[position % examples]) for position in positions]


@lru_cache(maxsize=2)
def _permutation(examples: int, epoch: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(examples)
