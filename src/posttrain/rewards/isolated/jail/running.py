"""Programs behind bars from their start to their end: what they say, how long they may, and that nothing of them is left."""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from posttrain.rewards.isolated.jail.start import Bars, Started, start

WALL = 10  # seconds by the clock for each second of the processor
GRACE = 0.3  # seconds until a program sees that nobody asks it any more
OUTPUT = 2**16  # bytes that a program may write, to either end
VERDICT = 2**20  # of what is said of tests
READ = 2**16


class NotStarted(Exception):
    """The bars could not be put up."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program wrote, and how it ended.

    ended: exit, with its code; or time, output, or killed, as by its memory or by a signal. A program that is no Python ends
    with code 2, one that raised with 1.
    """

    ended: str
    code: int
    out: str
    err: str
    seconds: float


def run(bars: Bars, program: str, given: str) -> Ran:
    """Runs a program, with this as its standard input.

    Raises:
        NotStarted: see there.
    """
    began = time.monotonic()
    text = json.dumps({"program": program}).encode()
    with _Ends() as ends:
        stdin, out, err, inside = ends.to(given.encode(errors="surrogatepass")), ends.of(), ends.of(), ends.to(text)
        started = start(bars, "run", [stdin, out, err, inside])
        ends.let_go()
        until = began + WALL * bars.bounds.seconds
        late = ends.talked(until, OUTPUT)
        code = ended(started, 0.0 if late else until - time.monotonic())
    wrote, told = (ends.heard[end].decode(errors="replace") for end in (out, err))
    why = late or ("time" if code == 128 + signal.SIGXCPU else "exit" if 0 <= code < 128 else "killed")
    return Ran(why, code, wrote, told, time.monotonic() - began)


def check(bars: Bars, program: str, tests: str | Sequence[str]) -> Mapping[str, Any]:
    """What `guest.check` says of the tests of a program, or {"bad": why they cannot be run}; and `late`, where it had no more
    time. Tests that do not come to an end are the program's fault: it has given them what they cannot digest.

    Raises:
        NotStarted: see there.
    """
    began = time.monotonic()
    with _Ends() as ends, open(os.devnull, "rb") as nothing, open(os.devnull, "wb") as nowhere:
        null, dropped = nothing.fileno(), nowhere.fileno()
        calls, call = ends.pair()
        answers, answer = ends.pair()
        inside, verdict = ends.to(json.dumps({"program": program}).encode()), ends.of()
        first = start(bars, "answer", [null, dropped, dropped, inside, calls, answer])
        tested = ends.to(json.dumps({"tests": tests}).encode())
        second = start(bars, "check", [null, verdict, dropped, tested, answers, call])
        ends.let_go()
        late = ends.talked(began + WALL * bars.bounds.seconds, VERDICT)
        code = ended(first, 0.0 if late else GRACE)
        if late:
            ends.talked(time.monotonic() + WALL * bars.bounds.seconds, VERDICT)
        ended(second, 0.0)
    with contextlib.suppress(ValueError):
        said = json.loads(ends.heard[verdict])
        return {**said, "late": bool(late) or code == 128 + signal.SIGXCPU}
    return {"state": "gone", "late": True}


def ended(started: Started, wait: float) -> int:
    """Waits so many seconds, kills what is left of a program, and takes leave of it.

    Returns:
        Its exit code, or 128 and the signal that ended it.

    Raises:
        NotStarted: it never began.
    """
    watched = os.pidfd_open(started.pid)
    select.select([watched], [], [], max(0.0, wait))
    os.close(watched)
    pid, status = os.waitpid(started.pid, os.WNOHANG)
    if not pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(started.pid, signal.SIGKILL)
        os.kill(started.pid, signal.SIGKILL)
        _, status = os.waitpid(started.pid, 0)
    with open(started.failed, "rb") as told:
        failed = told.read()
    if failed:
        raise NotStarted(failed.decode(errors="replace"))
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def swept() -> None:
    """Kills and takes leave of all that was left behind to this process, which adopts orphans."""
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG)[0]:
                continue
            for one in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            os.waitpid(-1, 0)


class _Ends:
    """Pipes: their ends here and there, and what was heard by each of those that a program writes to."""

    def __init__(self) -> None:
        self.heard = dict[int, bytearray]()
        self._there = list[int]()
        self._reading, self._writing = dict[int, int](), dict[int, bytes]()

    def __enter__(self) -> _Ends:
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        for end in (*self._reading, *self._writing):
            os.close(end)

    def pair(self) -> tuple[int, int]:
        """Both ends of one that is between programs."""
        both = os.pipe()
        self._there += both
        return both

    def to(self, data: bytes) -> int:
        """The end that a program reads this from."""
        there, here = os.pipe()
        os.set_blocking(here, False)
        self._there.append(there)
        self._writing[here] = data
        return there

    def of(self) -> int:
        """The end that a program writes to."""
        here, there = os.pipe()
        os.set_blocking(here, False)
        self._there.append(there)
        self._reading[here], self.heard[there] = there, bytearray()
        return there

    def let_go(self) -> None:
        """Closes the programs' ends here."""
        for end in self._there:
            os.close(end)
        self._there.clear()

    def talked(self, until: float, most: int) -> str:
        """Writes what is to be read, and reads what is written, to the end; or says why it came to none: time, or output."""
        while self._reading:
            with selectors.DefaultSelector() as selector:
                for end in self._reading:
                    selector.register(end, selectors.EVENT_READ)
                for end in self._writing:
                    selector.register(end, selectors.EVENT_WRITE)
                left = until - time.monotonic()
                ready = selector.select(left) if left > 0 else []
            if not ready:
                return "time"
            for key, _ in ready:
                if (file := key.fd) in self._writing:
                    self._write(file)
                elif self._read(file, most):
                    return "output"
        return ""

    def _write(self, file: int) -> None:
        try:
            self._writing[file] = self._writing[file][os.write(file, self._writing[file]) :]
        except BrokenPipeError:
            self._writing[file] = b""
        if not self._writing[file]:
            os.close(file)
            del self._writing[file]

    def _read(self, file: int, most: int) -> bool:
        """Whether there is more than may be."""
        data = os.read(file, READ)
        heard = self.heard[self._reading[file]]
        heard += data[: most - len(heard)]
        if not data:
            os.close(file)
            del self._reading[file]
        return len(heard) == most
