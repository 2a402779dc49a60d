"""Environments of a user's file: one that behaves, and one that does what it is told to in its second turn."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.environments.base import Start, Step, Turn


class Counts:
    """Says the number of the turn, and ends when it is told a word."""

    def __init__(self, word: str = "stop") -> None:
        self._word, self._turns = word, 0

    def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        self._number = columns["number"]
        return Start([{"role": "user", "content": f"Row {self._number}."}])

    async def step(self, turn: Turn) -> Step:
        self._turns += 1
        done = self._word in turn.text
        said = [] if done else [{"role": "user", "content": f"{self._number}/{self._turns}"}]
        return Step(said, reward=float(done), done=done, info={"correct": done})

    def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
        return {**columns, "number": len(infos)} if infos else None

    def close(self) -> None:
        pass


class Hostile(Counts):
    """Does something to row 3 in its second turn."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self._does = does

    async def step(self, turn: Turn) -> Any:
        if self._number == 3 and self._turns == 1:
            return HOSTILE[self._does]()
        return await super().step(turn)


def _forks() -> Any:
    if os.fork() == 0:
        time.sleep(600)
    raise RuntimeError("forked")


def _leaves_a_process() -> Any:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    os._exit(0)


def _computes_without_end() -> Any:
    while True:
        pass


def _prints_without_end() -> Any:
    while True:
        os.write(1, b"x" * 2**16)


HOSTILE: dict[str, Any] = {
    "hangs": lambda: time.sleep(600),
    "computes without end": _computes_without_end,
    "exits": lambda: os._exit(3),
    "raises": lambda: 1 / 0,
    "raises SystemExit": lambda: sys.exit("bye"),
    "kills its group": lambda: os.kill(os.getpid(), 9),
    "forks": _forks,
    "leaves a process": _leaves_a_process,
    "prints without end": _prints_without_end,
    "gives text": lambda: "on",
    "gives objects": lambda: Step([{"role": "user", "content": "on"}], info={"is": object()}),
    "says too much": lambda: Step([{"role": "user", "content": "x" * (2**24 + 1)}]),
}


class Forgetful(Counts):
    """No function of its row: it answers by its process."""

    relabel: Any = None

    async def step(self, turn: Turn) -> Step:
        if self._number == 3 and self._turns == 1:
            os._exit(0)
        self._turns += 1
        return Step([{"role": "user", "content": f"{os.getpid()}"}])
