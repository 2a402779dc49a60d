"""How things are timed: contenders in turn, again and again, and of each the least time on the clock and of the processor.

Ratios are of the processor's time outside the kernel, threads that wait for each other included: what the kernel spends is
the first touch of memory, which a virtual machine asks its host for, and which hangs on what ran before.

On a GPU the device is waited for before each reading of the clocks.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class Times:
    """Seconds: `wall` by the clock, `cpu` of all threads of this process; `user` is that less the kernel's."""

    wall: float
    cpu: float
    user: float


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
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    run()
    _wait()
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    user = after.ru_utime - before.ru_utime
    return Times(wall, user + after.ru_stime - before.ru_stime, user)


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
    clocks = ([getattr(each, field.name) for each in times] for field in fields(Times))
    return Times(*map(min, clocks))


def ratio(theirs: Times, ours: Times) -> float:
    """How many times theirs costs what ours does, by the processor outside the kernel; where there is a GPU, by the clock."""
    return theirs.wall / ours.wall if torch.cuda.is_available() else theirs.user / ours.user


def growth(large: Times, small: Times) -> float:
    """How many times the large costs what the small does: the larger of the two clocks."""
    return max(large.wall / small.wall, large.cpu / small.cpu)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
