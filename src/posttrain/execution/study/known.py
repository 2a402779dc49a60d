"""What came of a study's runs, in one file: with it alone the study goes on, in another folder or on another machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from posttrain.execution.study.matrix import Matrix, Run
from posttrain.execution.study.outcome import Outcome
from posttrain.train.watch.records import JsonLines

NOT_FINITE = "not_finite.txt"


def outcome_of(folder: Path) -> Outcome | None:
    """Of a run that has ended; None: it was not finite."""
    return None if (folder / NOT_FINITE).is_file() else Outcome.of(folder)


class Known:
    """The runs of a study that have ended: `outcomes.jsonl` in its folder has a line for each, by the run's `Matrix.key`.

    Args:
        matrix: of the study.
        folder: of the study.
    """

    def __init__(self, matrix: Matrix, folder: Path) -> None:
        self._matrix, self._file = matrix, JsonLines(folder / "outcomes.jsonl")
        self._outcomes = {line["key"]: _read(line["outcome"]) for line in self._file.read()}

    def lacking(self, runs: Iterable[Run]) -> list[Run]:
        """Those of which nothing is known."""
        return [run for run in runs if self._matrix.key(run) not in self._outcomes]

    def outcomes(self, runs: Iterable[Run]) -> dict[Run, Outcome | None]:
        """Of runs that are known; None: not finite."""
        return {run: self._outcomes[self._matrix.key(run)] for run in runs}

    def add(self, run: Run) -> None:
        """Takes over what the run's folder says."""
        key, outcome = self._matrix.key(run), outcome_of(run.folder)
        said = {**asdict(run), "folder": run.folder.as_posix()}
        self._file.append({**said, "key": key, "outcome": None if outcome is None else asdict(outcome)})
        self._outcomes[key] = outcome


def _read(outcome: Mapping[str, Any] | None) -> Outcome | None:
    """With NaN where a number is null."""
    if outcome is None:
        return None
    read: dict[str, Any] = {name: _numbers(value) for name, value in outcome.items()}
    return Outcome(**read)


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(one) for name, one in cast("dict[str, Any]", value).items()}
    return math.nan if value is None else value
