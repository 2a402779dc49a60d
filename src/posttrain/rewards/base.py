"""What a reward is: a judgement of each completion of a group. A score, nothing, or a failure. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar

from posttrain.data.answers import prompt_text
from posttrain.rewards.values import MAX_WEIGHT

T = TypeVar("T")
DEADLINE = 300.0  # seconds for one group


class Lazily(Sequence[T]):
    """What is made when it is first read: most rewards read texts, few tokens, fewer special ones."""

    def __init__(self, make: Callable[[], Iterable[T]]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> tuple[T, ...]:
        return tuple(self._make())

    def __getitem__(self, place: Any) -> Any:
        return self._made[place]

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The completions of one question, as a reward sees them: text from what the prompt writes at their beginning on (a
    template's `<think>`), without special tokens but for tags of thinking and answers; `raw` is the same with all of them,
    and `tokens` what was sampled.

    `finished` is False where max_tokens cut a completion off; `columns` are those of the question's row. The last `beside` of
    the completions are judged with the others, and are none of what was sampled: a reward that compares answers leaves
    them out. Where an environment answers, `episodes` has of each completion its `turns` (`text`, `calls`, `others`,
    `reward`, `info`), its `end` and, where it failed, the `fault`; the completion is the text of its last turn.
    """

    completions: Sequence[str]
    tokens: Sequence[Sequence[int]]
    finished: Sequence[bool]
    columns: Mapping[str, Any]
    raw: Sequence[str] = ()
    beside: int = 0
    episodes: Sequence[Mapping[str, Any]] = ()

    def texts(self, *, special_tokens: bool) -> Sequence[str]:
        """The completions, with all special tokens or without."""
        return self.raw if special_tokens else self.completions

    @property
    def prompt(self) -> str:
        """The question as text; `columns` has a conversation as its messages."""
        return prompt_text(self.columns["prompt"])


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score; None where there is nothing to be said, which takes the row out of the loss and of its group's baseline.

    right: the verdict, where the reward has one. answer: what was answered, where the reward reads it. fault: why judging
    failed (timeout, crash, …); such a row is counted against `max_error_rate`.
    """

    score: float | None
    right: bool | None = None
    answer: str | None = None
    fault: str | None = None

    @classmethod
    def failed(cls, fault: str) -> Judgement:
        """Nothing is known, and that is a fault."""
        return cls(None, fault=fault)


class Reward(Protocol):
    """Judges the completions of one question together."""

    @property
    def name(self) -> str:
        """Under which its mean is logged."""
        ...

    def judge(self, group: Group) -> Sequence[Judgement | float | None]:
        """One judgement, or a score by itself, for each completion, in order.

        What it raises, a wrong number of judgements, a score that is no number within `MAX_SCORE`, or no answer before the
        deadline fail the whole group, or the row, and never the run. The group is a copy.
        """
        ...

    def close(self) -> None:
        """Ends what the reward started."""
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """A reward in a sum.

    weight: 0 only watches. verdict: this reward says which answers are right. max_error_rate: above it the run ends with
    exit code 7. deadline: seconds for a group.
    """

    reward: Reward
    weight: float = 1.0
    verdict: bool = False
    max_error_rate: float = 0.2
    deadline: float = DEADLINE

    def __post_init__(self) -> None:
        if not abs(self.weight) <= MAX_WEIGHT:
            raise ValueError(f"weight: {self.weight:g} is not from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The columns that rewards name, which must be there; and whether one of them may read any other as well."""

    columns: tuple[str, ...]
    anything: bool

    @classmethod
    def by(cls, rewards: Iterable[Weighted]) -> Wanted:
        """Of these. A reward that names no columns, and one of somebody's own, may read them all."""
        given = [entry.reward for entry in rewards]
        named = dict.fromkeys(name for reward in given for name in getattr(reward, "columns", ()))
        return cls(tuple(named), any(getattr(one, "reads_anything", not hasattr(one, "columns")) for one in given))
