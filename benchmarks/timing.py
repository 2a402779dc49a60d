"""How things are timed: contenders in turn, again and again, and of each the least time on the clock and of the processor.

A ratio is told twice: of the processor's time outside the kernel, threads that wait for each other included, and by the
clock. What the kernel spends is the first touch of memory, which a virtual machine asks its host for, and which hangs on
what ran before.

On a GPU the device is waited for before each reading of the clocks.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from operations import Operations


@dataclass(frozen=True)
class Times:
    """Seconds: `wall` by the clock, `user` of all threads of this process outside the kernel, `system` in it.

    faults: pages of memory that were touched for the first time.
    """

    wall: float
    user: float
    system: float
    faults: int


@dataclass(frozen=True)
class Outcome:
    """What a step must have in common with the others' steps: its loss, and the 2-norm of all gradients together.

    operations: how many it took.
    """

    loss: float
    gradient_norm: float
    operations: int | None = None


@dataclass
class Contender:
    """One implementation of a case.

    step: forward and backward, gives the loss. Gradients are taken away before each.
    leaves: what gets gradients.
    against: the implementation that its ratio is taken to. honest: it makes the case's gradients; a floor does not.
    counted: its operations can be counted; those of a compiled one cannot.
    """

    step: Callable[[], Any]
    leaves: Sequence[torch.Tensor]
    against: str = "ours"
    honest: bool = True
    counted: bool = True
    note: str = ""

    def clear(self) -> None:
        """Takes all gradients away, with their memory."""
        for leaf in self.leaves:
            leaf.grad = None

    def outcome(self) -> Outcome:
        """Of one step."""
        self.clear()
        with Operations() if self.counted else nullcontext() as seen:
            loss = self.step()
        norms = [leaf.grad.double().norm() for leaf in self.leaves if leaf.grad is not None]
        norm = float(torch.stack(norms).norm()) if norms else 0.0
        return Outcome(float(loss), norm, None if seen is None else seen.count)


def once(run: Callable[[], Any]) -> Times:
    """Seconds of one call."""
    _wait()
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    run()
    _wait()
    wall, after = time.perf_counter() - wall, resource.getrusage(resource.RUSAGE_SELF)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return Times(wall, user, system, after.ru_minflt - before.ru_minflt)


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
    """The minimum of each clock, and of the faults, by itself."""
    clocks = ([getattr(each, field.name) for each in times] for field in fields(Times))
    return Times(*map(min, clocks))


def added(one: Times, other: Times, sign: int = 1) -> Times:
    """The sum of two, or their difference."""
    return Times(*(getattr(one, field.name) + sign * getattr(other, field.name) for field in fields(Times)))


def ratios(theirs: Times, ours: Times) -> dict[str, float]:
    """How many times theirs costs what ours does, for a `Result`: outside the kernel, and by the clock."""
    return {"ratio": theirs.user / max(ours.user, 1e-9), "ratio_wall": theirs.wall / ours.wall}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
