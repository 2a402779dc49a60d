"""A scripted user who wants a table: says what is asked for, one thing at a time, and changes their mind once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import model_validator

from posttrain.environments.base import Environment, Start, Step, Turn
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.base import NonNegative

SLOTS = {
    "day": ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    "time": ("17", "18", "19", "20", "21"),
    "people": ("1", "2", "3", "4", "5", "6", "7", "8"),
    "seat": ("inside", "outside", "bar"),
}
LONGEST = 200  # characters of a booking that are kept
PATIENCE = 3  # useless turns, after which the user leaves
_WORD = re.compile(r"[a-z]+")
_BOOK = re.compile(r"\s*book\b(.*)", re.DOTALL)
_VALUE = re.compile(r"([a-z]+)=([a-z0-9]+)")


class UserConfig(EnvironmentConfig):
    """A guest wants a table booked, says what they are asked for, and once wants something else than they said.

    book day=fri time=19 people=4 seat=bar ends it, and is paid 1 where all is right.
    """

    says_right: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True

    name: Literal["user"] = "user"
    again: NonNegative = 0.1
    """What it costs to ask for something that was said."""
    question: Annotated[str, fields("slots", "form")] = (
        "A guest wants a table. Ask for the {slots}, one in each turn; then book it, in this form: {form}\n"
        "Guest: I want a table."
    )
    """What the policy is asked; {slots} is what there is to ask for, {form} how it is booked."""
    said: Annotated[str, fields("slot", "value")] = "{slot}: {value}."
    """How the user says something."""
    changed: Annotated[str, fields("slot", "value")] = "No, {slot}: {value}."
    """How they say that they want something else."""

    @model_validator(mode="after")
    def _can_be_booked(self) -> Self:
        if self.max_turns <= len(SLOTS):
            raise ValueError(f"{len(SLOTS)} things are asked for before a table is booked: max_turns is {self.max_turns}")
        return self

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: User(self)


@dataclass(frozen=True, slots=True)
class UserTask:
    """What a user wants first, and would want then; which of the things said is changed, and after how many."""

    first: Mapping[str, str]
    then: Mapping[str, str]
    changed: int
    after: int


class User:
    """An `Environment`."""

    def __init__(self, config: UserConfig) -> None:
        self._config, self._task, self._useless = config, UserTask({}, {}, 0, 0), 0
        self._wanted, self._said = dict[str, str](), list[str]()

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        self._task, self._useless, self._said = drawn(columns, _task, str), 0, []
        self._wanted = dict(self._task.first)
        form = f"book {' '.join(f'{slot}={values[0]}' for slot, values in SLOTS.items())}"
        return Start([{"role": "user", "content": self._config.question.format(slots=", ".join(SLOTS), form=form)}])

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        text = turn.text.casefold()
        if (booked := _BOOK.match(text)) is not None:
            right = dict(_VALUE.findall(booked[1])) == self._wanted
            return Step(reward=float(right), done=True, info={"correct": right, "answer": booked[0].strip()[:LONGEST]})
        slot = next((word for word in _WORD.findall(text) if word in SLOTS), None)
        if slot is None:
            self._useless += 1
            gone = self._useless == PATIENCE
            told = [] if gone else [{"role": "user", "content": "Pardon?"}]
            return Step(told, reward=0.0, done=gone, info={"correct": False})
        self._useless, again = 0, slot in self._said
        told = self._config.said.format(slot=slot, value=self._wanted[slot])
        if not again:
            told += self._change(slot)
        paid = -self._config.again if again else 0.0
        return Step([{"role": "user", "content": told}], reward=paid, info={"correct": False, "answer": slot})

    async def close(self) -> None:
        """See `Environment`."""

    def _change(self, slot: str) -> str:
        """What the user says beside an answer: the other thing that they want, where it is time."""
        self._said.append(slot)
        if len(self._said) != self._task.after:
            return ""
        other = self._said[self._task.changed % (len(self._said) - 1)]
        self._wanted[other] = self._task.then[other]
        return f" {self._config.changed.format(slot=other, value=self._wanted[other])}"


def _task(draw: Random) -> UserTask:
    pairs = {slot: draw.sample(values, 2) for slot, values in SLOTS.items()}
    first, then = ({slot: pair[place] for slot, pair in pairs.items()} for place in (0, 1))
    return UserTask(first, then, draw.randrange(len(SLOTS)), draw.randint(2, len(SLOTS)))
