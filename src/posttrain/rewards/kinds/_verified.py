"""What rewards share that compare with a reference answer."""

from __future__ import annotations

from abc import ABC, abstractmethod

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import Grade, Grader, Verdict, graded
from posttrain.rewards.options import Judged, RewardConfig


class OfAnswers(RewardConfig, ABC):
    """Of rewards that grade the answer of a completion against the column `answer`."""

    columns, says_right = ("answer",), True
    reads_cut_off: bool = False
    """Completions that max_tokens cut off are read too; else they have no answer, and score 0."""

    @abstractmethod
    def grader(self) -> Grader:
        """What grades, started."""

    def build(self, judged: Judged) -> Verified:
        """With its grader."""
        return Verified(self.name, self.grader())


class Verified:
    """1 for a right answer, 0 for a wrong or an unparsable one, or none as it was cut off, or the grader's own score; a
    failure where its grader failed.

    Args:
        name: under which its mean is logged.
        grader: of the answers.
    """

    columns = ("answer",)

    def __init__(self, name: str, grader: Grader) -> None:
        self.name, self._grader = name, grader

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        answer, ended = str(group.columns["answer"]), zip(group.completions, group.finished, strict=True)
        return [self._one(graded(self._grader, text, group.prompt, answer, finished=end)) for text, end in ended]

    def _one(self, grade: Grade) -> Judgement:
        if grade.verdict.failed:
            return Judgement.failed(grade.verdict)
        right = grade.verdict is Verdict.RIGHT
        return Judgement(float(right) if grade.score is None else grade.score, right, grade.value)

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()
