"""The group's own majority as the reference answer: MM-UPT (arXiv:2505.22453), TTRL (arXiv:2504.16084)."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.grading import GRADERS, Grader, Verdict, classes
from posttrain.rewards.isolated.child import ChildDied
from posttrain.rewards.kinds.task import verifier
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.data import Generated


class MajorityVoteReward(RewardConfig):
    """The group's most frequent answer, without any label."""

    says_right = True
    name: Literal["majority_vote"] = "majority_vote"
    reads: Literal["math_verify", "exact_match", "task"] | None = None
    """How answers are read and compared; a generated task's own way, or math_verify, if not set."""

    reads_cut_off: bool = False
    """Completions that max_tokens cut off vote too. A task's own way reads them in any case."""

    def build(self, judged: Judged) -> MajorityVote:
        """With the grader that reads answers."""
        if isinstance(judged.source, Generated) and self.reads in (None, "task"):
            return MajorityVote(verifier(judged.source))
        return MajorityVote(GRADERS[self.reads or "math_verify"](reads_cut_off=self.reads_cut_off))


class MajorityVote:
    """1 for an answer equal to the group's most frequent one, else 0. No label is read.

    y* = the answer that most of a group's completions have,  r_i = 1[y_i = y*]

    Votes are counted by equivalence, as the grader sees it, where the papers count equal strings: answers are in one class
    where a chain of equal ones joins them, in whatever order they come. A completion that was cut off has no vote, nor has
    one that stands beside the group. Where the majority has no answer that can be read, or two answers tie, nothing is said
    of the group.

    Args:
        grader: reads answers and says which are equal.
    """

    name = "majority_vote"
    columns = ()

    def __init__(self, grader: Grader) -> None:
        self._grader = grader

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        read = [self._read(*one) for one in zip(group.completions, group.finished, strict=True)]
        texts: dict[str, list[str]] = {one.answer: [] for one in read if one.answer is not None}
        voters = read[: len(read) - group.beside]
        for one, text in zip(voters, group.completions, strict=False):
            if one.answer is not None:
                texts[one.answer].append(text)
        silent = sum(one.answer is None and one.fault is None for one in voters)
        of = classes(self._grader, {value: min(same, default=value) for value, same in texts.items()})
        votes = {members: sum(len(texts[value]) for value in members) for members in set(of.values())}
        most = max(votes.values(), default=0)
        winners = [members for members, count in votes.items() if count == most]
        winner = winners[0] if len(winners) == 1 and most > silent else None
        shown = {members: min(members, key=lambda value: (-len(texts[value]), value)) for members in votes}
        judged: list[Judgement] = []
        for one in read:
            members = of[one.answer] if one.answer is not None else None
            right = None if winner is None else members == winner
            answer = shown[members] if members is not None else None
            judged.append(one if one.fault else Judgement(None if right is None else float(right), right, answer))
        return judged

    def _read(self, text: str, finished: bool) -> Judgement:
        if not finished and not self._grader.reads_cut_off:
            return Judgement(None)
        try:
            return Judgement(None, answer=self._grader.answer(text))
        except TimeoutError:
            return Judgement.failed(Verdict.TIMEOUT)
        except ChildDied:
            return Judgement.failed(Verdict.CRASH)

    def close(self) -> None:
        """Ends the grader."""
        self._grader.close()
