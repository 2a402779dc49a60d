"""A rank that waits for others: what it waits in, where the others were last, and its end when that takes too long."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import torch.distributed as dist

from posttrain.errors import SetupError

_counts = itertools.count(1)  # ranks meet in the same order, so that equal counts are the same meeting


class Waiting:
    """While entered: after `seconds` the process says which ranks are missing, and ends with exit code 4.

    Every rank leaves word of where it is in the store that the ranks met through. A collective cannot be broken off from
    outside, so the process ends; the launcher ends the others.
    """

    def __init__(self, what: str, seconds: float, rank: int, world: int) -> None:
        self._what, self._seconds, self._rank, self._world = what, seconds, rank, world
        self._over, self._count = threading.Event(), 0

    def __enter__(self) -> Waiting:
        self._count = next(_counts)
        self._leave(f"in {self._what}")
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._leave(f"seen after {self._what}")

    def _leave(self, where: str) -> None:
        _store().set(f"posttrain/{self._rank}", f"{self._count} {where}")

    def _watch(self) -> None:
        if self._over.wait(self._seconds):
            return
        print(
            f"error: rank {self._rank} has waited {self._seconds:g} s in {self._what}: "
            f"{'; '.join(self._missing()) or 'all ranks are there, and it does not end'}. The last checkpoint is whole; the "
            "same command resumes from it. The stacks of this rank:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        os._exit(SetupError.exit_code)

    def _missing(self) -> Iterator[str]:
        for other in range(self._world):
            key = f"posttrain/{other}"
            count, _, where = (_store().get(key).decode() if _store().check([key]) else "0 at its start").partition(" ")
            if other != self._rank and int(count) < self._count:
                yield f"rank {other} has not come, and was last {where}"


def tell_failed() -> None:
    """Leaves word that this rank has failed, if it has met the others."""
    if dist.is_initialized():
        with contextlib.suppress(dist.DistError):  # the rank that keeps the store has gone: nobody is left to read it
            _store().set("posttrain/failed", "")


def one_failed() -> bool:
    """Whether a rank has left word that it failed."""
    try:
        return dist.is_initialized() and _store().check(["posttrain/failed"])
    except dist.DistError:
        return True


def _store() -> Any:
    return dist.distributed_c10d._get_default_store()  # pyright: ignore[reportPrivateUsage]  # the one that the ranks share
