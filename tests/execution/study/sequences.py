"""A small study over a sequence of tasks, and outcomes of its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from execution.study.made import STUDY
from posttrain.execution.study.config import StudyConfig
from posttrain.execution.study.matrix import Matrix, Run
from posttrain.execution.study.outcome import Outcome

SETS = ("one", "second", "third", "other")
TASKS: list[dict[str, Any]] = [
    {"name": "one", "train": {"task": "chain", "rows": 16}},
    {"name": "two", "set": "second", "train": {"task": "running_totals", "rows": 16}},
    {"name": "three", "set": "third", "train": {"task": "countdown", "rows": 16}},
]
EVALUATED = {
    name: {"task": task, "split": "held_out", "rows": 8}
    for name, task in zip(SETS, ("chain", "running_totals", "countdown", "chain"), strict=True)
}
SEQUENCE: dict[str, Any] = {
    **STUDY,
    "recipe": {**STUDY["recipe"], "data": {"eval": {**EVALUATED, "val": STUDY["recipe"]["data"]["eval"]["val"]}}},
    "starts": {"given": {"model": {"name": "some/model"}}},
    "algorithms": {
        "sft": {"algorithm": {"name": "sft"}},
        "replay": {"algorithm": {"name": "sft"}, "data": {"replay": {"share": 0.25}}},
    },
    "continual": {"tasks": TASKS, "general": ["other"], "anchor": {"from": "two", "alphas": [0.5]}},
    "budget": {"tokens": 300},
    "drift": "one",
    "baseline": "sft",
}


def sequence(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({**deepcopy(SEQUENCE), **changes})


def scores(values: Sequence[float]) -> dict[str, float]:
    return {f"eval/{name}/pass@1": value for name, value in zip(SETS, values, strict=True)}


def outcome(matrix: Sequence[Sequence[float]], line: Mapping[str, Sequence[float]], **more: Any) -> Outcome:
    """Of a run with these accuracies at the start and after each task, and at α on its line."""
    points = [scores(row) for row in matrix]
    stages = {task["name"]: point for task, point in zip(TASKS, points[1:], strict=True)}
    on_it = {alpha: scores(row) for alpha, row in line.items()}
    given: dict[str, Any] = {"before": points[0], "after": points[-1], "drift": {"kl_per_answer": 1.5}, "stages": stages}
    spent: dict[str, Any] = dict.fromkeys(("tokens", "tokens_trained", "tokens_generated", "seconds", "demonstrated"), 1.0)
    return Outcome(steps=3, line=on_it, **spent, **given, **more)


def reported(study: StudyConfig) -> list[Run]:
    return [run for pair in Matrix(study).pairs() for run in Matrix(study).final(*pair, 1e-3)]
