"""What an episode is a function of: a row's columns and a seed; and how it began when the row was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.environments.base import Start

COLUMN = "episode"
"""Of a row that was begun: the columns and the seed that its environment is given."""


@dataclass(frozen=True, slots=True)
class Task:
    """Columns and seed, and how the environment began with them: messages and tools."""

    columns: Mapping[str, Any]
    seed: int
    messages: Sequence[Any]
    tools: Sequence[Any]

    def began_so(self, start: Start) -> bool:
        """Whether an environment begins as it did when the row was read."""
        return _plain(start) == (list(self.messages), list(self.tools))


def begun(columns: Mapping[str, Any], seed: int, start: Start, tools_as: str = "") -> dict[str, Any]:
    """A row whose prompt is what its environment says first; as text, where that is one message of the user.

    `tools_as` describes the tools in words, before the first message, where no template does.
    """
    messages, tools = _plain(start)
    kept = {"columns": dict(columns), "seed": seed, "messages": messages, "tools": tools}
    if tools_as:
        messages = [{**messages[0], "content": f"{tools_as}\n\n{messages[0]['content']}"}, *messages[1:]]
    alone = len(messages) == 1 and set(messages[0]) == {"role", "content"} and messages[0]["role"] == "user"
    others = {name: value for name, value in columns.items() if name not in ("prompt", "messages", "tools")}
    given = {"tools": tools} if tools and not tools_as else {}
    return {**others, "prompt": messages[0]["content"] if alone else messages, **given, COLUMN: kept}


def task_of(columns: Mapping[str, Any]) -> Task:
    """The task of a row that was begun."""
    return Task(**columns[COLUMN])


def seed_of(columns: Mapping[str, Any], seed: int) -> int:
    """The seed of a row's episodes: a hash of the run's and of what the row says, whatever its place."""
    said = json.dumps(columns, sort_keys=True, default=str, ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(f"{seed}/{said}".encode(), digest_size=4).digest(), "big")


def _plain(start: Start) -> tuple[list[Any], list[Any]]:
    return [dict(one) for one in start.messages], [dict(one) for one in start.tools]
