"""How long a process has had for a request: a busy machine must not make its answer late."""

from __future__ import annotations

import time

import psutil

LONGEST = 10  # times its deadline that a request may take where its process hardly gets a processor
TICK = 0.1  # seconds between two looks


class Clock:
    """Runs from now on while the process computes or sleeps, and stands still while it waits for a processor.

    It never runs faster than time does, whatever the number of threads. A process that waits for another one sleeps, and
    where the system does not tell who sleeps (macOS) only the processor time and `LONGEST` count.

    Args:
        process: whose time it is.
        deadline: seconds of it.
    """

    def __init__(self, process: psutil.Process, deadline: float) -> None:
        self._process, self._deadline = process, deadline
        self._began = self._seen = time.monotonic()
        self._computed, self._spent = _computed(process), 0.0

    @property
    def tick(self) -> float:
        """Seconds until it should be looked at again."""
        return min(TICK, max(TICK / 10, self._deadline - self._spent))

    def is_over(self) -> bool:
        """Looks at the process. Its time is over as well after `LONGEST` times the deadline by the wall."""
        try:
            computed, asleep = _computed(self._process), self._process.status() != psutil.STATUS_RUNNING
        except psutil.Error:  # it ended
            computed, asleep = self._computed, True
        now = time.monotonic()
        passed = now - self._seen
        self._spent += passed if asleep else min(passed, computed - self._computed)
        self._seen, self._computed = now, computed
        return self._spent >= self._deadline or now - self._began >= LONGEST * self._deadline


def _computed(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
