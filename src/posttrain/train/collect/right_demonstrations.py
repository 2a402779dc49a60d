"""Whether the demonstrations that questions bring are right, by the run's own verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from posttrain.data.rows import DataReport, Problem
from posttrain.errors import DataError
from posttrain.rewards.base import Group, Weighted
from posttrain.rewards.judge import guarded


def with_right_demonstrations(
    problems: Sequence[Problem],
    rewards: Sequence[Weighted],
    tokenizer: Any,
    report: DataReport,
    *,
    on_wrong: Literal["skip", "keep", "raise"],
) -> list[Problem]:
    """The questions, without demonstrations that the rewards' verdict does not call right; each is noted in the report.

    Without a reward that gives a verdict nothing is checked.

    Raises:
        DataError: one is wrong, and that is to be an error.
    """
    judges, checked = [entry for entry in rewards if entry.verdict], list(problems)
    if not judges or on_wrong == "keep":
        return checked
    shown = {i: _as_group(problem, tokenizer) for i, problem in enumerate(problems) if problem.demonstration is not None}
    judged, _ = guarded(judges[-1].reward, list(shown.values()), judges[-1].deadline)
    for (i, group), [judgement] in zip(shown.items(), judged, strict=True):
        if judgement.right:
            continue
        where, [text], fault = problems[i].where, group.completions, judgement.fault
        reason = "is not right by the rewards' verdict" if fault is None else f"could not be graded ({fault})"
        if on_wrong == "raise":
            raise DataError(
                f"{where}: its demonstration {reason}: {text[-60:]!r}. Mend it, or set data.on_wrong_demonstration: skip."
            )
        report.note(where, f"its demonstration is not used: it {reason}", "wrong_demonstration")
        checked[i] = dataclasses.replace(problems[i], demonstration=None)
    if all(problem.demonstration is None for problem in checked):
        raise DataError(
            f"No demonstration can be used; the last: {report.notes[-1][1]}: {report.notes[-1][2]}. See the rewards and the "
            "column of answers, or set data.on_wrong_demonstration: keep."
        )
    return checked


def _as_group(problem: Problem, tokenizer: Any) -> Group:
    """The demonstration as the only answer to its question."""
    assert problem.demonstration is not None
    text = tokenizer.decode(problem.demonstration, skip_special_tokens=True)
    return Group(completions=[text], tokens=[problem.demonstration], finished=[True], columns=problem.columns)
