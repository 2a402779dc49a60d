"""Weights on their way to servers that another process brings them to, with what proves that they have arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from posttrain.rollout.engine import RolloutEngine
from posttrain.settings.rollout import VLLMConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parcel:
    """A model's weights in a folder, which is deleted when they are loaded.

    fingerprint: changes when a weight does. expected: the model's log-probs of all tokens at each place of the probe, as
    [places, V], where the whole proof is due. bound: the largest difference to them, in nats.
    """

    folder: Path
    version: int
    fingerprint: int
    expected: NDArray[np.float32] | None
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Servers that run, as another process needs to know them: `config` has their addresses; `ends` are the ids that end an
    answer; the model has `vocabulary` token ids.
    """

    config: VLLMConfig
    ends: Sequence[int]
    vocabulary: int


@runtime_checkable
class SendsParcels(RolloutEngine, Protocol):
    """An engine over servers that another process may use beside it, though not at the same time."""

    def served(self) -> Served:
        """What the other process must know."""
        ...

    def parcel(self, model: Any, version: int) -> Parcel:
        """The model's weights, for the other process to load; of ranks that share a model all call it together."""
        ...
