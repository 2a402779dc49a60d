"""Episodes as they lie in collected.jsonl: the ids that are trained on, and a transcript for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from posttrain.environments.base import Call, Turn
from posttrain.train.collect.episodes.episode import Episode


@dataclass(frozen=True, slots=True)
class Lived:
    """An episode: what followed the prompt, `mask` True where the policy wrote it; whether it is right (None: nobody knows,
    for it failed); whether it is `whole`, not cut off by the episode's tokens or the context; why it ended; and its turns.
    """

    ids: Sequence[int]
    mask: Sequence[bool]
    right: bool | None
    whole: bool
    end: str
    turns: Sequence[Mapping[str, Any]]
    fault: str | None = None

    @classmethod
    def of(cls, one: Episode, filler: int, right: bool | None) -> Lived:
        """What was played."""
        ids, _, own = one.row(filler)
        turns: Sequence[Mapping[str, Any]] = one.shown()["turns"]
        return cls(ids.tolist(), own.tolist(), right, not one.cut_off, one.end, turns, one.fault)

    @property
    def said(self) -> list[Turn]:
        """What the policy said, as its environment was told it."""
        return [
            Turn(one["text"], one.get("thinking"), tuple(Call(**call) for call in one.get("calls", ())), one["finish"])
            for one in self.turns
        ]

    @property
    def says_something(self) -> bool:
        """A turn of it is not empty."""
        return any(one["text"].strip() for one in self.turns)

    @property
    def infos(self) -> list[Mapping[str, Any]]:
        """Of its steps."""
        return [one["info"] for one in self.turns]

    @property
    def last_words(self) -> str:
        """What others said after the last turn."""
        return "\n".join(str(one["content"]) for one in self.turns[-1]["others"]) if self.turns else ""

    def until(self, turns: int) -> tuple[list[int], list[bool]]:
        """Ids and mask up to the end of so many turns."""
        end = 0
        for number, one in enumerate(self.turns[:turns]):
            while number and end < len(self.mask) and not self.mask[end]:
                end += 1
            end += int(one["tokens"])
        return [*self.ids[:end]], [*self.mask[:end]]


@dataclass(frozen=True, slots=True)
class Played:
    """The episodes of one row."""

    where: str
    episodes: Sequence[Lived]

    @property
    def right(self) -> int:
        """How many are right."""
        return sum(one.right is True for one in self.episodes)

    @property
    def failed(self) -> int:
        """Of how many nobody knows."""
        return sum(one.right is None for one in self.episodes)

    def chosen(self, *, right: bool) -> list[Lived]:
        """The different ones that are whole, and say something, right or wrong."""
        known = {(*one.ids, *one.mask): one for one in reversed(self.episodes) if one.right is right and one.whole}
        return [one for one in reversed(known.values()) if one.says_something]

    def line(self) -> dict[str, Any]:
        """For the file; of the mask 1 is the policy's."""
        episodes = [{**asdict(one), "mask": [int(own) for own in one.mask]} for one in self.episodes]
        return {"where": self.where, "right": self.right, "failed": self.failed, "episodes": episodes}

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Played:
        """From a line again."""
        episodes = [Lived(**{**one, "mask": [bool(own) for own in one["mask"]]}) for one in line["episodes"]]
        return cls(line["where"], episodes)
