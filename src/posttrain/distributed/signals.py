"""Signals that ask a run to end: it saves a checkpoint and ends with exit code 75, and the same command goes on.

SIGTERM (a preempted job), SIGINT (Ctrl-C) and SIGUSR1 (Slurm's warning) mean the same. While training, the first one is
remembered until a place where nothing is half done; elsewhere it ends the run at once. A second one ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from posttrain.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
PR_SET_PDEATHSIG = 1  # of prctl(2)


def end_with_parent(parent: int, number: signal.Signals) -> None:
    """Has the kernel send this process a signal when its parent ends, however that ends; on Linux alone. It ends now if the
    parent has ended already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


class Interruption:
    """The signals of this process while it is entered; in a thread that is not the first one it listens to none."""

    def __init__(self) -> None:
        self.by: str | None = None
        """The name of the signal that came, if one did."""
        self._deferring = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._came) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """While entered, a signal is remembered and does nothing."""
        with self._set(True):
            yield

    @contextlib.contextmanager
    def let_through(self) -> Iterator[None]:
        """While entered, a signal raises `Interrupted` where it comes; one that came before raises it now."""
        self.check()
        with self._set(False):
            yield

    def check(self) -> None:
        """Raises `Interrupted` if a signal came."""
        if self.by is not None:
            raise Interrupted(self._ended())

    @contextlib.contextmanager
    def _set(self, deferring: bool) -> Iterator[None]:
        before, self._deferring = self._deferring, deferring
        try:
            yield
        finally:
            self._deferring = before

    def _came(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.by is not None:
            os.write(2, f"error: a second signal ({name}): ended at once. The last checkpoint is whole.\n".encode())
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.by = name
        if not self._deferring:
            raise Interrupted(self._ended())
        os.write(2, f"{name}: saving a checkpoint; a second signal ends at once.\n".encode())  # print cannot be re-entered

    def _ended(self) -> str:
        return f"{self.by}: ended. The same command goes on, from its last checkpoint if there is one."
