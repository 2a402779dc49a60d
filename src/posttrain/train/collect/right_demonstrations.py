"""Demonstrations in rollouts: whether they are right by the run's own verdict, and sets of them beside the questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from posttrain.data.rows import DataReport, Problem
from posttrain.errors import DataError
from posttrain.estimator.batch import Batch
from posttrain.rewards.base import Group, Weighted
from posttrain.rewards.judge import guarded
from posttrain.train.collect.collection import Collection, Collector


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


class BesideDemonstrations:
    """Rollouts, and in each optimizer step rows of a separate set of demonstrations.

    Args:
        rollouts: the collector of rollouts.
        demonstrations: the collector of as many optimizer steps of demonstrations.
    """

    def __init__(self, rollouts: Collector, demonstrations: Collector) -> None:
        self._rollouts, self._demonstrations = rollouts, demonstrations

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        """See `Collector`."""
        return _beside(self._rollouts.collect(model, step, progress), self._demonstrations.collect(model, step, progress))

    def state(self) -> dict[str, Any]:
        """See `Collector`: the rollouts'."""
        return self._rollouts.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Collector`."""
        self._rollouts.restore(state)


def _beside(rollouts: Collection, shown: Collection) -> Collection:
    rows, units = len(rollouts.rows), len(rollouts.units)
    later = tuple(tuple(row + rows for row in unit) for unit in shown.units)
    return dataclasses.replace(
        rollouts,
        rows=rollouts.rows + shown.rows,
        units=rollouts.units + later,
        steps=tuple(
            own + tuple(unit + units for unit in theirs) for own, theirs in zip(rollouts.steps, shown.steps, strict=True)
        ),
        where=rollouts.where + shown.where,
        batch=_joined(rollouts.batch, shown.batch),
    )


def _joined(one: Batch, other: Batch) -> Batch:
    """Rows of rollouts, then of demonstrations: with a reward of 0, wrong, and groups of their own."""
    width = max(one.loss_mask.shape[1], other.loss_mask.shape[1])
    changes: dict[str, Any] = {"group": torch.cat([one.group, other.group + one.group.max() + 1])}
    for field in dataclasses.fields(Batch):
        value, beside = getattr(one, field.name), getattr(other, field.name)
        if not isinstance(value, Tensor) or field.name in changes:
            continue
        if beside is None:
            shape = other.loss_mask.shape if value.dim() == 2 else other.loss_mask.shape[:1]
            beside = torch.full(shape, field.name == "reward_mask", dtype=value.dtype)
        if value.dim() == 2:
            value, beside = (pad(part, (0, width - part.shape[1])) for part in (value, beside))
        changes[field.name] = torch.cat([value, beside])
    unrewarded = torch.zeros(len(other.group), dtype=torch.float64)
    changes["rewards_by_name"] = {name: torch.cat([v, unrewarded.to(v.dtype)]) for name, v in one.rewards_by_name.items()}
    return one.replace(**changes)
