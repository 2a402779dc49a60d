"""A child process that answers one JSON line with another, and is killed when it does not: text of a model may freeze a
parser or fill the memory, and code of a user may do anything. Here that costs a child.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.errors import SetupError

START_DEADLINE = 60.0  # seconds for the child to import what it needs, on a busy machine


class ChildDied(Exception):
    """The child ended, or said what is no JSON."""


class Child:
    """Started at once, and again by the first request after it was killed. Requests come one at a time, from any thread.

    Args:
        command: of a process whose first line is `"ready"`, or a message that says why it is not.
        what: named in the message where it does not start.
        environment: its whole environment; this process's own if None.

    Raises:
        SetupError: it does not start.
    """

    def __init__(self, command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None) -> None:
        self._command, self._what, self._environment = command, what, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._lock, self._read = threading.Lock(), b""
        self._start()

    def ask(self, request: Any, deadline: float) -> Any:
        """The child's answer.

        Raises:
            TimeoutError: none came in `deadline` seconds, and the child was killed.
            ChildDied: it ended.
        """
        with self._lock:
            process = self._process or self._start()
            try:
                end = time.monotonic() + deadline
                self._write(process, json.dumps({"request": request, "deadline": deadline}).encode() + b"\n", end)
                return self._line(process, end)
            except (TimeoutError, ChildDied):
                self._kill()
                raise

    def close(self) -> None:
        """Kills the child."""
        with self._lock:
            self._kill()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment, process_group=0
        )
        assert process.stdin is not None and process.stdout is not None
        os.set_blocking(process.stdin.fileno(), False)
        os.set_blocking(process.stdout.fileno(), False)
        self._process, self._read = process, b""
        try:
            said = self._line(process, time.monotonic() + START_DEADLINE)
        except (TimeoutError, ChildDied):
            said = f"it did not start. Try: {' '.join(self._command)}"
        if said != "ready":
            self._kill()
            raise SetupError(f"{self._what}: {said}")
        return process

    def _write(self, process: subprocess.Popen[bytes], data: bytes, end: float) -> None:
        assert process.stdin is not None
        while data:
            _wait(process.stdin.fileno(), selectors.EVENT_WRITE, end)
            try:
                data = data[os.write(process.stdin.fileno(), data) :]
            except BrokenPipeError:
                raise ChildDied from None

    def _line(self, process: subprocess.Popen[bytes], end: float) -> Any:
        assert process.stdout is not None
        while b"\n" not in self._read:
            _wait(process.stdout.fileno(), selectors.EVENT_READ, end)
            more = os.read(process.stdout.fileno(), 2**16)
            if not more:
                raise ChildDied
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        try:
            return json.loads(line)
        except ValueError:
            raise ChildDied from None

    def _kill(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()
        self._process = None


def _wait(file: int, event: int, end: float) -> None:
    with selectors.DefaultSelector() as ready:
        ready.register(file, event)
        if not ready.select(max(0.0, end - time.monotonic())):
            raise TimeoutError
