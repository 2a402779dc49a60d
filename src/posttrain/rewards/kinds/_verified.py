"""What rewards share that compare with a reference answer."""

from __future__ import annotations

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import Grader, Verdict


class Verified:
    """1 for a right answer, 0 for a wrong or an unparsable one; a failure where its grader failed.

    Args:
        name: under which its mean is logged.
        grader: of the answers.
    """

    columns = ("answer",)

    def __init__(self, name: str, grader: Grader) -> None:
        self.name, self._grader = name, grader

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [self._one(text, group.prompt, str(group.columns["answer"])) for text in group.completions]

    def _one(self, completion: str, prompt: str, answer: str) -> Judgement:
        grade = self._grader.grade(completion, prompt, answer)
        if grade.verdict.failed:
            return Judgement.failed(grade.verdict)
        right = grade.verdict is Verdict.RIGHT
        return Judgement(float(right), right, grade.value)

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()
