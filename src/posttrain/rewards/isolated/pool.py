"""Children of one command, one for each request under way."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from posttrain.errors import SetupError
from posttrain.rewards.isolated.child import Child, ChildDied


class Pool:
    """Requests from any thread, each with a child of its own: an idle one, or another that is started. One that fails costs
    its child, and the next is started at once, so that it is ready when it is needed.

    Args:
        command: see `Child`, as are the others.
        what: named in the message where the first child does not start.

    Raises:
        SetupError: it does not start.
    """

    def __init__(
        self, command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None, quiet: bool = False
    ) -> None:
        self._new = partial(Child, command, environment=environment, quiet=quiet)
        self._lock, self._closed = threading.Lock(), False
        self._idle, self._busy = list[Child](), set[Child]()
        child = self._taken()
        try:
            child.start()
        except BaseException as error:
            child.end()
            if isinstance(error, ChildDied):
                raise SetupError(f"{what}: {error}") from None
            raise
        self._give_back(child)

    @property
    def pids(self) -> list[int]:
        """Of the idle children, the next to be asked last."""
        return [child.pid for child in self._idle]

    def ask(self, request: Any, deadline: float) -> Any:
        """A child's answer.

        Raises:
            TimeoutError: none came in `deadline` seconds of its own (see `Clock`).
            ChildDied: the child ended or did not start, or the pool is closed.
        """
        child = self._taken()
        try:
            answer = child.ask(request, deadline)
        except BaseException:
            child.end()
            self._replace(child)
            raise
        self._give_back(child)
        return answer

    def close(self) -> None:
        """Kills all children; requests under way end with ChildDied."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = tuple(self._busy)
        for child in idle:
            child.end()
        for child in busy:
            child.kill()

    def _taken(self) -> Child:
        with self._lock:
            if self._closed:
                raise ChildDied("it was closed")
            child = self._idle.pop() if self._idle else self._new()
            self._busy.add(child)
        return child

    def _give_back(self, child: Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if not self._closed:
                self._idle.append(child)
                return
        child.end()

    def _replace(self, child: Child) -> None:
        """The new one is first in the row: those that have started are taken before it."""
        with self._lock:
            self._busy.discard(child)
            if not self._closed:
                self._idle.insert(0, self._new())
