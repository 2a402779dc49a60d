"""Code of the user's that judges, in a process of its own that ends when it hangs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, Literal

from posttrain.rewards.base import Judgement
from posttrain.rewards.isolated.child import START_DEADLINE, ChildDied
from posttrain.rewards.isolated.clock import LONGEST
from posttrain.rewards.isolated.pool import Pool


class Own:
    """A pool of processes that run one reward of the user's.

    Args:
        kind: what the path leads to.
        path: see `posttrain.settings.doors.code`.
        options: keyword arguments, plain data.
        deadline: seconds of the process's own for a group.

    Raises:
        SetupError: it cannot be loaded.
    """

    def __init__(self, kind: Literal["function", "class"], path: str, options: Mapping[str, Any], deadline: float) -> None:
        self._deadline = deadline
        command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.own_child", kind, path, json.dumps(options)]
        self._pool = Pool(command, what="A reward does not start")

    def ask(self, request: dict[str, Any]) -> Any:
        """Its answer, or why there is none.

        Returns:
            What the child answers, or the judgement of a failure.
        """
        try:
            reply = self._pool.ask(request, self._deadline)
        except TimeoutError:
            return Judgement.failed("timeout")
        except ChildDied:
            return Judgement.failed("crash")
        return Judgement.failed(reply["error"]) if "error" in reply else reply

    def close(self) -> None:
        """Ends the processes."""
        self._pool.close()


def longest(deadline: float) -> float:
    """Seconds by the wall in which such a process has started anew and was ended at its deadline, on the busiest machine."""
    return LONGEST * (START_DEADLINE + deadline) + 10.0


def no_json(columns: Mapping[str, Any]) -> dict[str, str]:
    """The columns that cannot be sent, with the type of each."""
    found: dict[str, str] = {}
    for name, value in columns.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            found[name] = type(value).__name__
    return found
