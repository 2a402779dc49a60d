"""What an episode is a function of: a row's columns and a seed; and how it began when the row was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.environments.base import Start

COLUMN = "episode"
"""Of a row that was begun: the columns and the seed that its environment is given."""


@dataclass(frozen=True, slots=True)
class Task:
    """Columns and seed, and what the policy saw first."""

    columns: Mapping[str, Any]
    seed: int
    shown: tuple[Any, Any] | None = None

    def began_so(self, start: Start) -> bool:
        """Whether an environment begins as it did when the row was read."""
        return self.shown is None or self.shown == _shown(start)


def begun(columns: Mapping[str, Any], seed: int, start: Start) -> dict[str, Any]:
    """A row whose prompt is what its environment says first; as text, where that is one message of the user."""
    messages, tools = _shown(start)
    alone = len(messages) == 1 and set(messages[0]) == {"role", "content"} and messages[0]["role"] == "user"
    others = {name: value for name, value in columns.items() if name not in ("prompt", "messages", "tools")}
    kept = {"columns": dict(columns), "seed": seed}
    prompt = messages[0]["content"] if alone else messages
    return {**others, "prompt": prompt, **({"tools": tools} if tools else {}), COLUMN: kept}


def task_of(columns: Mapping[str, Any]) -> Task:
    """The task of a row that was begun."""
    kept, prompt = columns[COLUMN], columns["prompt"]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return Task(kept["columns"], kept["seed"], (messages, list(columns.get("tools") or ())))


def seed_of(columns: Mapping[str, Any], seed: int) -> int:
    """The seed of a row's episodes: a hash of the run's and of what the row says, whatever its place."""
    said = json.dumps(columns, sort_keys=True, default=str, ensure_ascii=True)
    return int.from_bytes(hashlib.blake2b(f"{seed}/{said}".encode(), digest_size=4).digest(), "big")


def _shown(start: Start) -> tuple[list[Any], list[Any]]:
    return [dict(one) for one in start.messages], [dict(one) for one in start.tools]
