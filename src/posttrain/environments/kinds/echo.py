"""One question, one answer: what a run without an environment does, as an environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from posttrain.environments.base import Environment, Message, Start, Step, Turn
from posttrain.environments.options import EnvironmentConfig


class EchoConfig(EnvironmentConfig):
    """The row's own prompt is asked; rewards judge what is answered. With more than one turn each answer is said back."""

    name: Literal["echo"] = "echo"

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Echo(self.max_turns)


class Echo:
    """An `Environment`."""

    def __init__(self, turns: int) -> None:
        self._left = turns

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        prompt = columns["prompt"]
        messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return Start(messages, columns.get("tools") or ())

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        self._left -= 1
        return Step(done=True) if not self._left else Step([{"role": "user", "content": turn.text}])

    async def close(self) -> None:
        """See `Environment`."""
