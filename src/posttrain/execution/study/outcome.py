"""The outcome of a run, from the files in its folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from posttrain.execution.study.continual.recipes import ANCHOR, alpha_of
from posttrain.train.watch.records import JsonLines


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run: its first and last evaluation, what it spent, how far it went from its start model, and what was watched.

    watched: the mean of every metric of its steps, over those that have it. stages: by its name, the last evaluation of each
    stage, where the run has any. line: by α, the evaluations of the models on the line to its last. measures: what a study
    over a sequence of tasks has made of them.
    """

    before: dict[str, float]
    after: dict[str, float]
    steps: int
    tokens: float
    tokens_trained: float
    tokens_generated: float
    seconds: float
    demonstrated: float
    drift: dict[str, float]
    watched: dict[str, float] = field(default_factory=dict)
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    line: dict[str, dict[str, float]] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> Outcome:
        """Of a run's folder; the stages of one that has any are added up."""
        parts = stages(folder)
        evaluated = {part: _evaluations(part) for part in parts}
        evaluations = [line for lines in evaluated.values() for line in lines]
        steps = [line for part in parts for line in JsonLines(part / "metrics.jsonl").of_steps()]
        drift = folder / "drift.json"
        return cls(
            before=evaluations[0] if evaluations else {},
            after=evaluations[-1] if evaluations else {},
            steps=len(steps),
            tokens=sum(line["step/tokens"] for line in steps),
            tokens_trained=sum(line["train/tokens"] for line in steps),
            tokens_generated=sum(line.get("rollout/tokens", 0.0) for line in steps),
            seconds=sum(line.get("step/seconds", 0.0) for line in steps),
            demonstrated=sum(line["train/demonstrated"] for line in steps) / max(len(steps), 1),
            drift=json.loads(drift.read_text()) if drift.is_file() else {},
            watched=_means(steps),
            stages={_name(part): lines[-1] for part, lines in evaluated.items() if lines and part != folder},
            line={alpha_of(_name(part)): lines[-1] for part in stages(folder / ANCHOR) if (lines := _evaluations(part))},
        )


def _name(part: Path) -> str:
    return part.name.partition("-")[2]


def _evaluations(part: Path) -> list[dict[str, Any]]:
    return JsonLines(part / "eval.jsonl").of_steps()


def _means(steps: Sequence[dict[str, Any]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for line in steps:
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                found.setdefault(name, []).append(float(value))
    return {name: sum(values) / len(values) for name, values in found.items()}


def stages(folder: Path) -> Sequence[Path]:
    """The folders that hold a run's steps: its stages in order, or itself."""
    numbered = [path for path in folder.glob("*-*") if path.name.partition("-")[0].isdigit() and path.is_dir()]
    return sorted(numbered, key=lambda path: int(path.name.partition("-")[0])) or [folder]


def over_tokens(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The steps and the evaluations of a run, each with `tokens`, those of all rows of its steps by then."""
    lines: list[dict[str, Any]] = []
    evaluated: list[dict[str, Any]] = []
    spent = 0.0
    for part in stages(folder):
        at = {0: spent}
        for line in JsonLines(part / "metrics.jsonl").of_steps():
            spent += line["step/tokens"]
            at[line["step"]] = spent
            lines.append({**line, "tokens": spent})
        evaluated += [{**line, "tokens": at[line["step"]]} for line in _evaluations(part)]
    return lines, evaluated
