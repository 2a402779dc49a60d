"""What the rewards' verdict says of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from posttrain.data.answers import AnswerText
from posttrain.data.rows import Problem
from posttrain.rewards.base import Group, Weighted
from posttrain.rewards.judge import guarded

QUOTED = 60  # characters of a wrong one


def demonstration_faults(
    rewards: Sequence[Weighted], tokenizer: Any
) -> Callable[[Sequence[Problem]], list[str | None]] | None:
    """A function that says why the demonstration of each of some questions is not right, or None where it is.

    None where no reward gives a verdict.
    """
    judges = [entry for entry in rewards if entry.verdict]
    if not judges:
        return None
    judge, text = judges[-1], AnswerText(tokenizer)

    def faults(problems: Sequence[Problem]) -> list[str | None]:
        groups = [_as_group(problem, text) for problem in problems]
        judged, _ = guarded(judge.reward, groups, judge.deadline)
        found: list[str | None] = []
        for group, [judgement] in zip(groups, judged, strict=True):
            reason = "is not right by the rewards' verdict"
            if judgement.fault is not None:
                reason = f"could not be graded ({judgement.fault})"
            found.append(None if judgement.right else f"{reason}: {group.completions[0][-QUOTED:]!r}")
        return found

    return faults


def _as_group(problem: Problem, text: AnswerText) -> Group:
    """The demonstration as the only answer to its question."""
    assert problem.demonstration is not None
    given = (problem.prompt, problem.columns, problem.demonstration)
    return Group(
        completions=[text.of(*given)],
        tokens=[problem.demonstration],
        finished=[True],
        columns=problem.columns,
        raw=[text.raw(*given)],
    )
