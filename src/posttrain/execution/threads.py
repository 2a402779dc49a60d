"""With how many threads a run computes on a CPU, where nobody says it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

SMALL = 2_000_000  # parameters, below which threads wait for each other longer than they compute


def threads(model: Any) -> int | None:
    """Those for a model: one for a small one. None where OMP_NUM_THREADS says it, or a GPU computes."""
    if "OMP_NUM_THREADS" in os.environ or torch.cuda.is_available():
        return None
    return 1 if sum(p.numel() for p in model.parameters()) < SMALL else torch.get_num_threads()


@contextmanager
def threads_for(model: Any) -> Iterator[None]:
    """While entered, torch has them.

    A thread that waits for another one spins: it takes a processor from whatever else runs on the machine, and is the later
    for it.
    """
    before, wanted = torch.get_num_threads(), threads(model)
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)
