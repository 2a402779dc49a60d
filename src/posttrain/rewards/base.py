"""What a reward is: a judgement of each completion of a group. A score, or None where nothing can be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from posttrain.rewards.grading import Grader, Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """A score; None where grading failed, which masks the row. `right` is the verdict, where the reward has one."""

    score: float | None
    right: bool | None = None


class Reward(Protocol):
    """Judges the completions of one question together."""

    name: str

    def judge(self, completions: Sequence[str], columns: Mapping[str, Any]) -> list[Judgement]:
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

    def judge(self, completions: Sequence[str], columns: Mapping[str, Any]) -> list[Judgement]:
        """See `Reward`."""
        return [self._one(text, str(columns["prompt"]), str(columns["answer"])) for text in completions]

    def _one(self, completion: str, prompt: str, answer: str) -> Judgement:
        verdict = self._grader.grade(completion, prompt, answer).verdict
        if verdict.failed:
            return Judgement(None)
        right = verdict is Verdict.RIGHT
        return Judgement(float(right), right)

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()
