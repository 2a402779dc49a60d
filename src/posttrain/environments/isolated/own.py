"""Environments of the user's class in a few processes. One that hangs or dies costs the episode that it was asked for; the
others that it had are played again in a new one, up to where they were.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posttrain.environments.base import Start, Step, Turn
from posttrain.environments.isolated.plain import of_turn
from posttrain.errors import SetupError
from posttrain.rewards.isolated.child import Child, ChildDied
from posttrain.rewards.values import Refused


class Host:
    """One process, started anew after it failed, asked by one at a time. What it prints is dropped. `born` is how often it
    was started.
    """

    def __init__(self, command: list[str]) -> None:
        self._command, self._lock = command, threading.Lock()
        self._child: Child | None = None
        self._closed = False
        self.born = 0

    def start(self) -> None:
        """Waits until it can be asked.

        Raises:
            ChildDied: it cannot.
        """
        with self._lock:
            self._living().start()

    def ask(self, request: dict[str, Any], deadline: float, born: int) -> tuple[dict[str, Any] | None, int]:
        """The answer; None, with how often it was started since, where it is no longer the process that was started as the
        `born`th.

        Raises:
            TimeoutError, ChildDied: as `Child.ask`; the process is ended.
        """
        with self._lock:
            child = self._living()
            if born not in (0, self.born):
                return None, self.born
            try:
                return child.ask(request, deadline), self.born
            except BaseException:
                child.end()
                self._child = None
                raise

    def close(self) -> None:
        """Ends it, and a request under way with it."""
        self._closed = True
        if (child := self._child) is not None:
            child.kill()
        with self._lock:
            if self._child is not None:
                self._child.end()

    def _living(self) -> Child:
        if self._closed:
            raise ChildDied("it was closed")
        if self._child is None:
            self._child, self.born = Child(self._command, quiet=True), self.born + 1
        return self._child


class Hosts:
    """Makes environments, dealt to so many processes.

    Args:
        command: of a process that answers as `child.answering` does.
        processes: how many.
        deadline: seconds that one has for an answer in which its process computes or sleeps.

    Raises:
        SetupError: the first process does not start.
    """

    def __init__(self, command: Sequence[str], *, processes: int, deadline: float) -> None:
        self._hosts = [Host(list(command)) for _ in range(processes)]
        self._turn, self._numbers, self._deadline = itertools.cycle(self._hosts), itertools.count(1), deadline
        try:
            self._hosts[0].start()
        except ChildDied as error:
            self.close()
            raise SetupError(f"An environment does not start: {error}") from None

    def __call__(self) -> OwnEnvironment:
        return OwnEnvironment(next(self._turn), next(self._numbers), self._deadline)

    def close(self) -> None:
        """Ends the processes."""
        for host in self._hosts:
            host.close()


def of_class(path: str, options: Mapping[str, Any]) -> list[str]:
    """The command of a process that has environments of a class.

    Args:
        path: of the class (`posttrain.settings.doors.code`).
        options: keyword arguments of it.
    """
    return [sys.executable, "-P", "-m", "posttrain.environments.isolated.child", path, json.dumps(dict(options))]


class OwnEnvironment:
    """An `Environment` in a process that may have several; one that `KeepsTime`: waiting for the process is not counted."""

    keeps_time: Literal[True] = True

    def __init__(self, host: Host, number: int, deadline: float) -> None:
        self._host, self._number, self._deadline = host, number, deadline
        self._asked = list[tuple[dict[str, Any], dict[str, Any]]]()
        self._born = 0

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        answer = await asyncio.to_thread(self._answer, {"reset": [dict(columns), seed]})
        return Start(**answer["start"])

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        answer = await asyncio.to_thread(self._answer, {"step": of_turn(turn)})
        return Step(**answer["step"])

    async def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """See `Relabelling`."""
        answer = await asyncio.to_thread(self._answer, {"relabel": [dict(columns), [dict(one) for one in infos]]})
        return answer["columns"]

    async def close(self) -> None:
        """See `Environment`."""
        if self._born:
            await asyncio.to_thread(self._host.ask, {"of": self._number, "close": True}, self._deadline, self._born)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        request = {"of": self._number, **request}
        try:
            answer, born = self._host.ask(request, self._deadline, self._born)
            while answer is None:
                self._born = born
                answer, born = self._again(request)
        except ChildDied as error:
            self._born = 0
            raise Refused(f"its process died: {error}") from None
        except TimeoutError:
            self._born = 0
            raise
        if "error" in answer:
            self._born = 0
            raise Refused(answer["error"])
        self._born = born
        self._asked.append((request, answer))
        return answer

    def _again(self, request: dict[str, Any]) -> tuple[dict[str, Any] | None, int]:
        """All that it was asked before, in another process; then the request."""
        for before, expected in self._asked:
            answer, born = self._host.ask(before, self._deadline, self._born)
            if answer is None:
                return None, born
            if answer != expected:
                raise Refused("it answers otherwise when it is played again: it is no function of its row and seed")
        return self._host.ask(request, self._deadline, self._born)
