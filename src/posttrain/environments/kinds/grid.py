"""A world of squares in text: a key is fetched, a door opened by it, and the goal behind it reached."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from posttrain.data.tasks import split_of
from posttrain.environments.base import Environment, Start, Step, Turn
from posttrain.environments.kinds._drawn import drawn
from posttrain.environments.kinds._templates import fields
from posttrain.environments.options import EnvironmentConfig
from posttrain.settings.base import NonNegative

WAYS = {"n": (0, -1), "e": (1, 0), "s": (0, 1), "w": (-1, 0)}
TAKE = "take"
MARKS = "#.SKDG"
Place = tuple[int, int]


class GridConfig(EnvironmentConfig):
    """On a map in text a key is fetched, a door opened by it, and the goal reached.

    The map shows walls #, the start S, the key K, the door D and the goal G. Each turn is a step, n e s w, or go n, or take,
    where the key lies. A row may have a map as its column map.
    """

    says_right: ClassVar[bool] = True
    forks: ClassVar[bool] = True
    makes_tasks: ClassVar[bool] = True
    relabels: ClassVar[bool] = True

    name: Literal["grid"] = "grid"
    size: Annotated[int, Field(ge=3, le=20)] = 5
    """Rows and columns of a map that is made; which can be walked in max_turns."""
    walls: NonNegativeInt = 2
    """Beside the wall that the door is in."""
    door: bool = True
    """Maps that are made have a key and a door; else start, goal and walls alone."""
    key_reward: NonNegative = 0.2
    """For the key, once; the goal is 1."""
    question: Annotated[str, fields("map", needed=True)] = (
        "{map}\nYou are at S, and go to G; D is a door, which opens to who has the key K; # is a wall. Answer with one step, "
        "n, e, s or w, or with take, to take the key."
    )
    """What the policy is asked; {map} has a line for each row."""
    seen: Annotated[str, fields("column", "row", "key")] = "{column},{row} {key}"
    """What it is told after each turn: where it is, from the upper left corner 1,1 on, and K if it has the key, else -."""

    @model_validator(mode="after")
    def _can_be_walked(self) -> Self:
        if self.max_turns < (fewest := max(4, self.size)):
            raise ValueError(f"a map of size {self.size} takes {fewest} turns: max_turns is smaller, {self.max_turns}")
        return self

    def build(self) -> Callable[[], Environment]:
        """See `EnvironmentConfig`."""
        return lambda: Grid(self)


@dataclass(frozen=True, slots=True)
class Map:
    """A map, by rows from above."""

    rows: Sequence[str]

    @classmethod
    def read(cls, text: str) -> Map:
        """The map of a text.

        Raises:
            ValueError: its rows differ in length, it has other marks, or not one start, goal, key and door at most.
        """
        rows = text.strip().split("\n")
        if len({len(row) for row in rows}) != 1 or not set("".join(rows)) <= set(MARKS):
            raise ValueError(f"a map has rows of one length, of the marks {MARKS}")
        if any(text.count(mark) != 1 for mark in "SG") or any(text.count(mark) > 1 for mark in ("K", "D")):
            raise ValueError("a map has one start S and one goal G, and no more than one key K and one door D")
        return cls(rows)

    def find(self, mark: str) -> Place | None:
        """Where a mark stands: its column and row, from 0."""
        return next(((row.index(mark), number) for number, row in enumerate(self.rows) if mark in row), None)

    def at(self, place: Place) -> str:
        """What stands somewhere; a wall outside."""
        column, row = place
        return self.rows[row][column] if 0 <= row < len(self.rows) and 0 <= column < len(self.rows[0]) else "#"

    def moved(self, place: Place, key: bool, act: str) -> tuple[Place, bool]:
        """Where one is after an act, and whether with the key."""
        if act == TAKE:
            return place, key or self.at(place) == "K"
        there = place[0] + WAYS[act][0], place[1] + WAYS[act][1]
        closed = self.at(there) == "#" or (self.at(there) == "D" and not key)
        return (place if closed else there), key

    def shortest(self) -> list[str] | None:
        """The fewest acts from the start to the goal; None where there is no way."""
        start: tuple[Place, bool] = self.find("S") or (0, 0), False
        before: dict[tuple[Place, bool], tuple[tuple[Place, bool], str] | None] = {start: None}
        waiting = deque[tuple[Place, bool]]([start])
        while waiting:
            state = waiting.popleft()
            if self.at(state[0]) == "G":
                acts = list[str]()
                while (back := before[state]) is not None:
                    state, act = back
                    acts.insert(0, act)
                return acts
            for act in (*WAYS, TAKE):
                after = self.moved(state[0], state[1], act)
                if after not in before:
                    before[after] = state, act
                    waiting.append(after)
        return None


class Grid:
    """An `Environment`."""

    def __init__(self, config: GridConfig) -> None:
        self._config, self._map, self._place, self._key = config, Map(["SG"]), (0, 0), False

    async def reset(self, columns: Mapping[str, Any], seed: int) -> Start:
        """See `Environment`."""
        self._map, self._key = map_of(columns, self._config), False
        self._place = self._map.find("S") or (0, 0)
        return Start([{"role": "user", "content": self._config.question.format(map="\n".join(self._map.rows))}])

    async def step(self, turn: Turn) -> Step:
        """See `Environment`."""
        act = turn.text.strip().removeprefix("go ").strip()
        if act not in (*WAYS, TAKE):
            return Step([{"role": "user", "content": "!"}], reward=0.0, info={"correct": False})
        had = self._key
        self._place, self._key = self._map.moved(self._place, had, act)
        if self._map.at(self._place) == "G":
            return Step(reward=1.0, done=True, info={"correct": True, "answer": act})
        column, row = self._place
        told = self._config.seen.format(column=column + 1, row=row + 1, key="K" if self._key else "-")
        paid = self._config.key_reward if self._key and not had else 0.0
        info = {"correct": False, "answer": act, "at": [column, row]}
        return Step([{"role": "user", "content": told}], reward=paid, info=info)

    async def relabel(self, columns: Mapping[str, Any], infos: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """See `Relabelling`: the goal lies where the episode ended, or on the last free square before; on a map that the
        environment makes, of the same split.
        """
        known = map_of(columns, self._config)
        stood = [(one["at"][0], one["at"][1]) for one in infos if "at" in one]
        end = next((place for place in reversed(stood) if known.at(place) == "."), None)
        if end is None:
            return None
        rows = [row.replace("G", ".") for row in known.rows]
        rows[end[1]] = f"{rows[end[1]][: end[0]]}G{rows[end[1]][end[0] + 1 :]}"
        text = "\n".join(rows)
        if "map" not in columns and split_of(text) != columns["split"]:
            return None
        return {**columns, "map": text}

    async def close(self) -> None:
        """See `Environment`."""

    def state(self) -> bytes:
        """See `Forkable`."""
        return json.dumps([self._place, self._key]).encode()

    def restore(self, state: bytes) -> None:
        """See `Forkable`."""
        (column, row), self._key = json.loads(state)
        self._place = column, row


def map_of(columns: Mapping[str, Any], config: GridConfig) -> Map:
    """The map of a row, or the one that it asks for."""
    return Map.read(str(columns["map"]) if "map" in columns else drawn(columns, lambda draw: _drawn_map(draw, config), str))


def _drawn_map(draw: Random, config: GridConfig) -> str:
    """A map that can be walked.

    Raises:
        ValueError: none was found that can be walked in max_turns.
    """
    for _ in range(1_000):
        text = "\n".join("".join(row) for row in (_with_door if config.door else _open)(draw, config))
        acts = Map.read(text).shortest()
        if acts is not None and len(acts) <= config.max_turns:
            return text
    raise ValueError(f"no map of size {config.size} was found that is walked in max_turns, {config.max_turns}")


def _with_door(draw: Random, config: GridConfig) -> list[list[str]]:
    """A wall from above to below, in it the door, the goal behind it, and start and key before it."""
    wall = draw.randrange(1, config.size - 1)
    rows = [["#" if column == wall else "." for column in range(config.size)] for _ in range(config.size)]
    rows[draw.randrange(config.size)][wall] = "D"
    before = [(column, row) for column in range(wall) for row in range(config.size)]
    behind = [(column, row) for column in range(wall + 1, config.size) for row in range(config.size)]
    draw.shuffle(before)
    draw.shuffle(behind)
    free = before[2:] + behind[1:]
    marks = {"S": before[:1], "K": before[1:2], "G": behind[:1], "#": draw.sample(free, min(config.walls, len(free)))}
    return _marked(rows, marks)


def _open(draw: Random, config: GridConfig) -> list[list[str]]:
    """Start, goal and walls, anywhere."""
    free = [(column, row) for column in range(config.size) for row in range(config.size)]
    draw.shuffle(free)
    rows = [["."] * config.size for _ in range(config.size)]
    return _marked(rows, {"S": free[:1], "G": free[1:2], "#": free[2 : 2 + config.walls]})


def _marked(rows: list[list[str]], marks: Mapping[str, Sequence[Place]]) -> list[list[str]]:
    for mark, places in marks.items():
        for column, row in places:
            rows[row][column] = mark
    return rows
