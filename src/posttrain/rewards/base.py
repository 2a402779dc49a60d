"""What a reward is: a judgement of each completion of a group. A score, or None where nothing can be said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.rewards.grading import Grader, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The completions of one question, as a reward sees them: text without special tokens, and token ids with them.

    `finished` is False where max_tokens cut a completion off; `columns` are those of the question's row.
    """

    completions: Sequence[str]
    tokens: Sequence[Sequence[int]]
    finished: Sequence[bool]
    columns: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score; None where grading failed, which masks the row. `right` is the verdict, where the reward has one."""

    score: float | None
    right: bool | None = None


class Reward(Protocol):
    """Judges the completions of one question together."""

    name: str

    def judge(self, group: Group) -> Sequence[Judgement]:
        """One judgement for each completion, in order. Never raises on a completion, whatever it holds."""
        ...

    def close(self) -> None:
        """Ends what the reward started."""
        ...


class Verified:
    """1 for a right answer, 0 for a wrong or an unparsable one; None where its grader failed.

    Args:
        name: under which its mean is logged.
        grader: of the answers.
    """

    def __init__(self, name: str, grader: Grader) -> None:
        self.name, self._grader = name, grader

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        prompt, answer = str(group.columns["prompt"]), str(group.columns["answer"])
        return [self._one(text, prompt, answer) for text in group.completions]

    def _one(self, completion: str, prompt: str, answer: str) -> Judgement:
        verdict = self._grader.grade(completion, prompt, answer).verdict
        if verdict.failed:
            return Judgement(None)
        right = verdict is Verdict.RIGHT
        return Judgement(float(right), right)

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()


@dataclass(frozen=True, slots=True)
class Weighted:
    """A reward in a sum. `verdict` marks the one that says right or wrong."""

    reward: Reward
    weight: float = 1.0
    verdict: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Rewarded:
    """What came of judging rows: the weighted sum and its parts, 0 where a reward said nothing.

    `graded` is False in a row for which a reward with a weight, or the verdict, said nothing.
    """

    total: Float[Tensor, " B"]
    by_name: Mapping[str, Float[Tensor, " B"]]
    graded: Bool[Tensor, " B"]
    correct: Bool[Tensor, " B"] | None

    @classmethod
    def join(cls, groups: Sequence[Rewarded]) -> Rewarded:
        """The rows of several groups, judged by the same rewards."""
        verdicts = [group.correct for group in groups if group.correct is not None]
        return cls(
            total=torch.cat([group.total for group in groups]),
            by_name={name: torch.cat([group.by_name[name] for group in groups]) for name in groups[0].by_name},
            graded=torch.cat([group.graded for group in groups]),
            correct=torch.cat(verdicts) if verdicts else None,
        )


def judge(rewards: Sequence[Weighted], group: Group) -> Rewarded:
    """Every reward on one group. A score that is not finite counts as none.

    Raises:
        ValueError: a reward gave another number of judgements than the group has completions.
    """
    rows = len(group.completions)
    total, graded = torch.zeros(rows, dtype=torch.float64), torch.ones(rows, dtype=torch.bool)
    by_name: dict[str, Tensor] = {}
    correct: Tensor | None = None
    for entry in rewards:
        judgements = _judged(entry.reward, group)
        said = [one.score is not None and math.isfinite(one.score) for one in judgements]
        scores = torch.tensor([one.score if ok else 0.0 for one, ok in zip(judgements, said, strict=True)], dtype=total.dtype)
        by_name[entry.reward.name] = scores
        total = total + entry.weight * scores
        if entry.weight or entry.verdict:
            graded = graded & torch.tensor(said, dtype=torch.bool)
        if entry.verdict:
            correct = torch.tensor([bool(one.right) for one in judgements], dtype=torch.bool)
    return Rewarded(total, by_name, graded, correct)


def _judged(reward: Reward, group: Group) -> Sequence[Judgement]:
    judgements = reward.judge(group)
    if len(judgements) != len(group.completions):
        raise ValueError(
            f"the reward {reward.name} gave {len(judgements)} judgements for a group of {len(group.completions)} completions"
        )
    return judgements
