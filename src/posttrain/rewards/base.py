"""What a reward is: a judgement of each completion of a group. A score, nothing, or a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.rewards.values import MAX_WEIGHT

DEADLINE = 300.0  # seconds for one group


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The completions of one question, as a reward sees them: text without special tokens, and token ids with them.

    `finished` is False where max_tokens cut a completion off; `columns` are those of the question's row.
    """

    completions: Sequence[str]
    tokens: Sequence[Sequence[int]]
    finished: Sequence[bool]
    columns: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The question as text."""
        return str(self.columns["prompt"])


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


@dataclass(frozen=True, slots=True, eq=False)
class Rewarded:
    """What came of judging rows: the weighted sum and its parts, 0 where a reward said nothing.

    `scored` is True where that reward gave a score; `graded` is False in a row of which a reward with a weight said nothing.
    `known` is True where there is a verdict.
    `faults` has, for each reward, why judging a row failed, or None; `answers` what was answered, where any reward reads it.
    """

    total: Float[Tensor, " B"]
    by_name: Mapping[str, Float[Tensor, " B"]]
    scored: Mapping[str, Bool[Tensor, " B"]]
    graded: Bool[Tensor, " B"]
    correct: Bool[Tensor, " B"] | None
    known: Bool[Tensor, " B"]
    faults: Mapping[str, tuple[str | None, ...]]
    answers: tuple[str | None, ...]

    def take(self, rows: Sequence[int]) -> Rewarded:
        """What came of some of the rows."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Rewarded(
            total=self.total[index],
            by_name={name: scores[index] for name, scores in self.by_name.items()},
            scored={name: said[index] for name, said in self.scored.items()},
            graded=self.graded[index],
            correct=None if self.correct is None else self.correct[index],
            known=self.known[index],
            faults={name: tuple(faults[row] for row in rows) for name, faults in self.faults.items()},
            answers=tuple(self.answers[row] for row in rows),
        )

    @classmethod
    def join(cls, groups: Sequence[Rewarded]) -> Rewarded:
        """The rows of several groups, judged by the same rewards."""
        verdicts = [group.correct for group in groups if group.correct is not None]
        return cls(
            total=torch.cat([group.total for group in groups]),
            by_name={name: torch.cat([group.by_name[name] for group in groups]) for name in groups[0].by_name},
            scored={name: torch.cat([group.scored[name] for group in groups]) for name in groups[0].scored},
            graded=torch.cat([group.graded for group in groups]),
            correct=torch.cat(verdicts) if verdicts else None,
            known=torch.cat([group.known for group in groups]),
            faults={name: tuple(f for group in groups for f in group.faults[name]) for name in groups[0].faults},
            answers=tuple(answer for group in groups for answer in group.answers),
        )
