"""The group's own majority as the reference answer: MM-UPT (arXiv:2505.22453), TTRL (arXiv:2504.16084)."""

from __future__ import annotations

from dataclasses import dataclass, field

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import Grader, Verdict


@dataclass(slots=True)
class _Class:
    """Completions with equal answers."""

    answer: str
    written: set[str] = field(default_factory=set[str])
    rows: list[int] = field(default_factory=list[int])


class MajorityVote:
    """1 for an answer equal to the group's most frequent one, else 0. No label is read.

    y* = the answer that most of a group's completions have,  r_i = 1[y_i = y*]

    Votes are counted by equivalence, as the grader sees it, where the papers count equal strings. Where the majority has no
    answer that can be read, or two answers tie, nothing is said of the group.

    Args:
        grader: reads answers and says which are equal.
    """

    name = "majority_vote"
    columns = ()

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        failed: dict[int, str] = {}
        classes: list[_Class] = []
        silent = 0
        for i, text in enumerate(group.completions):
            try:
                found = self._class_of(text, group.prompt, classes)
            except _Failed as failure:
                failed[i] = failure.verdict
                continue
            if found is None:
                silent += 1
            else:
                found.rows.append(i)
        votes = sorted((len(one.rows) for one in classes), reverse=True)
        most = votes[0] if votes else 0
        decided = most > silent and votes.count(most) == 1
        answers = {i: one.answer for one in classes for i in one.rows}
        winners = {i for one in classes if len(one.rows) == most for i in one.rows}
        return [
            Judgement.failed(failed[i])
            if i in failed
            else Judgement(float(i in winners) if decided else None, i in winners if decided else None, answers.get(i))
            for i in range(len(group.completions))
        ]

    def _class_of(self, text: str, prompt: str, classes: list[_Class]) -> _Class | None:
        """The class of an answer, a new one if need be; None where no answer can be read."""
        answer = self._grader.answer(text)
        if answer is None:
            return None
        for one in classes:
            if answer in one.written:
                return one
        if self._verdict(text, prompt, answer) is not Verdict.RIGHT:  # not even equal to itself
            return None
        for one in sorted(classes, key=lambda one: -len(one.rows)):
            if self._verdict(text, prompt, one.answer) is Verdict.RIGHT:
                one.written.add(answer)
                return one
        classes.append(_Class(answer, {answer}))
        return classes[-1]

    def _verdict(self, text: str, prompt: str, answer: str) -> Verdict:
        verdict = self._grader.grade(text, prompt, answer).verdict
        if verdict in (Verdict.TIMEOUT, Verdict.CRASH):
            raise _Failed(verdict)
        return verdict

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()


class _Failed(Exception):
    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict)
        self.verdict = verdict
