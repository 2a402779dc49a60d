"""One of several things is found by asking for its properties, as in twenty questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from string import ascii_lowercase
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.environments.base import Environment, Start, Step, Turn, Unmoved
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.options import EnvironmentConfig

_SAID = re.compile(r"(?:has\s+)?([1-9])\s*\??|(?:is\s+)?([a-z])\s*\??")


class TwentyConfig(EnvironmentConfig):
    """One of the things of a table is found by asking for its properties: has 3? is k?

    3 and k alone ask the same. Each turn that does not find it costs 1.
    """

    says_right: ClassVar[bool] = True
    forks: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["twenty"] = "twenty"
    bits: Annotated[int, Field(ge=1, le=4)] = 4
    """There are 2 to this power things, which as many of their properties tell apart."""
    others: Annotated[int, Field(ge=0, le=5)] = 2
    """Properties beside those, by chance."""
    question: Annotated[str, fields("table", needed=True)] = (
        "{table}\nEach line is a thing and its properties from 1 on, 1 where it has one. Find the one that I mean: ask "
        "has 1? for a property, or is a? for a thing."
    )
    """What the policy is asked; {table} has a line for each thing."""
    yes: str = "yes"
    """What it is told where it is so."""
    no: str = "no"
    """What it is told where it is not."""

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Twenty(self)


@dataclass(frozen=True, slots=True)
class TwentyTask:
    """The properties of each thing, and the number of the one that is meant."""

    things: Sequence[str]
    meant: int

    @property
    def table(self) -> str:
        """A line for each thing."""
        return "\n".join(f"{name} {has}" for name, has in zip(ascii_lowercase, self.things, strict=False))


class Twenty(Unmoved):
    """An `Environment`."""

    def __init__(self, config: TwentyConfig) -> None:
        self._config, self._task = config, TwentyTask((), 0)

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        self._task = drawn(columns, lambda draw: _task(draw, self._config), lambda task: task.table)
        return Start([{"role": "user", "content": self._config.question.format(table=self._task.table)}])

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        things, meant = self._task.things, self._task.meant
        found = _SAID.fullmatch(turn.text.strip())
        if found is None or (found[1] and int(found[1]) > len(things[0])):
            return Step([{"role": "user", "content": "!"}], reward=-1.0, info={"correct": False})
        if found[2] == ascii_lowercase[meant]:
            return Step(reward=0.0, done=True, info={"correct": True, "answer": found[2]})
        has = bool(found[1]) and things[meant][int(found[1]) - 1] == "1"
        told = self._config.yes if has else self._config.no
        return Step([{"role": "user", "content": told}], reward=-1.0, info={"correct": False, "answer": found[1] or found[2]})

    async def close(self) -> None:
        """See `Environment`."""


def _task(draw: Random, config: TwentyConfig) -> TwentyTask:
    """Things whose properties halve them bits times, in an order of their own."""
    codes = [f"{number:0{config.bits}b}" for number in range(2**config.bits)]
    draw.shuffle(codes)
    places = draw.sample(range(config.bits + config.others), config.bits + config.others)
    things = [code + "".join(draw.choice("01") for _ in range(config.others)) for code in codes]
    return TwentyTask([("".join(thing[place] for place in places)) for thing in things], draw.randrange(len(things)))
