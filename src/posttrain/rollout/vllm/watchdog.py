"""Ends a process whose engine makes no progress: a hang must never look like a long run."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from posttrain.errors import EngineError


class Watchdog:
    """While entered: without a `beat` for `deadline` seconds, all stacks go to stderr and the process ends with exit code 6.

    The engine's call cannot be broken off from outside, so the process ends, after `clean_up`; what was saved before stays
    whole.
    """

    def __init__(self, what: str, deadline: float, clean_up: Callable[[], None] | None = None) -> None:
        self._what, self._deadline, self._over, self._clean_up = what, deadline, threading.Event(), clean_up
        self._last = time.monotonic()

    def __enter__(self) -> Watchdog:
        self.beat()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()

    def beat(self) -> None:
        """There was progress."""
        self._last = time.monotonic()

    def _watch(self) -> None:
        while not self._over.wait(max(0.01, self._last + self._deadline - time.monotonic())):
            if time.monotonic() - self._last >= self._deadline:
                self._end()

    def _end(self) -> None:
        print(
            f"error: {self._what} made no progress for {self._deadline:g} s and counts as hung. The last checkpoint is "
            "whole; the same command resumes from it. All stacks:",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        if self._clean_up is not None:
            self._clean_up()
        os._exit(EngineError.exit_code)
