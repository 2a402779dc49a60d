"""A number is guessed: each guess is answered by < or >, for the number is smaller or greater."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.environments.base import Environment, Start, Step, Turn, Unmoved
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.options import EnvironmentConfig


class GuessConfig(EnvironmentConfig):
    """A number from 0 to size - 1 is guessed, and each guess answered by < or >.

    < where the number is smaller, > where it is greater, and ! where the guess is no number.
    """

    says_right: ClassVar[bool] = True
    forks: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["guess"] = "guess"
    size: Annotated[int, Field(ge=2, le=10**9)] = 10
    """How many numbers there are. All splits have the same."""
    question: str = "Guess a number from 0 to {last}. Answer with the number alone."
    """What the policy is asked; {last} is the greatest number."""
    hints: bool = True
    """Answer < and >; else every wrong guess is answered !, and what was guessed before is all that helps."""
    dense: bool = False
    """Pay -1/max_turns for each guess that is wrong; else 1 for the right one, and nothing for others."""

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Guess(self)


class Guess(Unmoved):
    """An `Environment`; a row may have the number as its column `secret`."""

    def __init__(self, config: GuessConfig) -> None:
        self._config, self._secret = config, 0

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        size = self._config.size
        self._secret = int(columns["secret"]) if "secret" in columns else drawn(columns, lambda draw: _number(draw, size))
        return Start([{"role": "user", "content": self._config.question.replace("{last}", str(size - 1))}])

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        said = turn.text.strip()
        paid = -1 / self._config.max_turns if self._config.dense else 0.0
        if not (said.isascii() and said.isdecimal()):
            return Step([{"role": "user", "content": "!"}], reward=paid, info={"correct": False})
        guess = int(said[:20])
        if guess == self._secret:
            return Step(reward=0.0 if self._config.dense else 1.0, done=True, info={"correct": True, "answer": said})
        hint = ("<" if self._secret < guess else ">") if self._config.hints else "!"
        return Step([{"role": "user", "content": hint}], reward=paid, info={"correct": False, "answer": said})

    async def close(self) -> None:
        """See `Environment`."""


def _number(draw: Random, size: int) -> int:
    return draw.randrange(size)
