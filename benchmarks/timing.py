"""How things are timed: contenders in turn, again and again, and of each the least time on the clock and of the processor.

On a GPU the device is waited for before each reading of the clocks.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Times:
    """Seconds: `wall` by the clock, `cpu` of all threads of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Outcome:
    """What a step must have in common with the others' steps: its loss, and the 2-norm of all gradients together."""

    loss: float
    gradient_norm: float


@dataclass
class Contender:
    """One implementation of a case.

    step: forward and backward, gives the loss. Gradients are taken away before each.
    leaves: what gets gradients.
    against: the implementation that its ratio is taken to. honest: it makes the case's gradients; a floor does not.
    """

    step: Callable[[], Any]
    leaves: Sequence[torch.Tensor]
    against: str = "ours"
    honest: bool = True
    note: str = ""

    def clear(self) -> None:
        """Takes all gradients away, with their memory."""
        for leaf in self.leaves:
            leaf.grad = None

    def outcome(self) -> Outcome:
        """Of one step."""
        self.clear()
        loss = float(self.step())
        norms = [leaf.grad.double().norm() for leaf in self.leaves if leaf.grad is not None]
        return Outcome(loss, float(torch.stack(norms).norm()) if norms else 0.0)


def once(run: Callable[[], Any]) -> Times:
    """Seconds of one call."""
    _wait()
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    _wait()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def in_turn(contenders: Mapping[str, Contender], rounds: int) -> dict[str, Times]:
    """The least times of `rounds` rounds; in each, every contender has one turn."""
    seen: dict[str, list[Times]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            contender.clear()
            gc.collect()
            seen[name].append(once(contender.step))
    return {name: least(times) for name, times in seen.items()}


def least(times: Sequence[Times]) -> Times:
    """The minimum of each clock by itself."""
    return Times(min(each.wall for each in times), min(each.cpu for each in times))


def ratio(theirs: Times, ours: Times) -> float:
    """How many times theirs costs what ours does: by the clock or the processor, the smaller of the two."""
    return min(theirs.wall / ours.wall, theirs.cpu / ours.cpu)


def growth(large: Times, small: Times) -> float:
    """How many times the large costs what the small does: the larger of the two clocks."""
    return max(large.wall / small.wall, large.cpu / small.cpu)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
