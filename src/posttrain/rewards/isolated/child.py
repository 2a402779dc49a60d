"""A child process that answers one JSON line with another, and is ended when it does not: text of a model may freeze a
parser or fill the memory, and code of a user may do anything. Here that costs a child.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from posttrain.rewards.isolated.clock import LONGEST, Clock

START_DEADLINE = 60.0  # seconds of its own for the child to import what it needs
KILL_DEADLINE = 5.0  # seconds until a killed process that cannot die is left to the system


class ChildDied(Exception):
    """The child ended, did not start, or said what is no answer to the request."""


class Child:
    """One process, started at once. It belongs to one thread at a time; only `kill` may come from another.

    Args:
        command: of a process whose first line is `"ready"`, or a message that says why it is not.
        environment: its whole environment; this process's own if None.
        quiet: what it writes to the console is dropped.
    """

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, quiet: bool = False) -> None:
        errors = subprocess.DEVNULL if quiet else None
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, process_group=0
        )
        assert process.stdin is not None and process.stdout is not None
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._watched = psutil.Process(process.pid)
        os.set_blocking(self._stdin.fileno(), False)
        os.set_blocking(self._stdout.fileno(), False)
        self._command, self._read, self._asked = command, b"", 0
        self._started = self._killed = False

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def start(self) -> None:
        """Waits until it can be asked.

        Raises:
            ChildDied: it cannot, and why.
        """
        if self._started:
            return
        try:
            said = self._line(self._clock(START_DEADLINE))
        except (TimeoutError, ChildDied):
            said = f"it did not start. Try: {' '.join(self._command)}"
        if said != "ready":
            raise ChildDied(said)
        self._started = True

    def ask(self, request: Any, deadline: float) -> Any:
        """The child's answer. After an exception of any kind it must be ended: it may still be busy with the request.

        Raises:
            TimeoutError: none came in `deadline` seconds of the child's own (see `Clock`).
            ChildDied: see there.
        """
        self.start()
        if self._read or _ready(self._stdout.fileno(), selectors.EVENT_READ, 0.0):
            raise ChildDied("it spoke without being asked")
        self._asked += 1
        clock = self._clock(deadline)
        longest = LONGEST * deadline
        self._write(json.dumps({"id": self._asked, "request": request, "longest": longest}).encode() + b"\n", clock)
        said = self._line(clock)
        try:
            asked, answer = said["id"], said["answer"]
        except (TypeError, KeyError):
            raise ChildDied("it said what is no answer") from None
        if asked != self._asked:
            raise ChildDied("it answered another request")
        return answer

    def kill(self) -> None:
        """Kills the process and its group; a request under way ends with ChildDied."""
        if self._killed:
            return
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(KILL_DEADLINE)

    def end(self) -> None:
        """Kills it and closes its pipes, without waiting for whoever else has them open."""
        self.kill()
        self._stdin.close()
        self._stdout.close()

    def _clock(self, deadline: float) -> Clock:
        try:
            return Clock(self._watched, deadline)
        except psutil.Error:
            raise ChildDied("it ended") from None

    def _write(self, data: bytes, clock: Clock) -> None:
        while data:
            self._wait(self._stdin.fileno(), selectors.EVENT_WRITE, clock)
            try:
                data = data[os.write(self._stdin.fileno(), data) :]
            except BrokenPipeError:
                raise ChildDied("it ended") from None

    def _line(self, clock: Clock) -> Any:
        while b"\n" not in self._read:
            self._wait(self._stdout.fileno(), selectors.EVENT_READ, clock)
            more = os.read(self._stdout.fileno(), 2**16)
            if not more:
                raise ChildDied("it ended")
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            raise ChildDied("it said what is no JSON") from None

    def _wait(self, file: int, event: int, clock: Clock) -> None:
        while not _ready(file, event, clock.tick):
            ended = self._killed or self._process.poll() is not None  # though another one may keep its pipe open
            if _ready(file, event, 0.0):
                return
            if ended:
                raise ChildDied("it ended")
            if clock.is_over():
                raise TimeoutError


def _ready(file: int, event: int, seconds: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(file, event)
        return bool(selector.select(seconds))
