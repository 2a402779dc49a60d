"""The file of a study's results: a line for each run that is reported, from which its tables can be made again."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from posttrain.errors import RecipeError
from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import Outcome
from posttrain.train.watch.records import write

_MEASURED = ("before", "after", "drift", "watched")
_AT_POINTS = ("stages", "line")


def save_results(path: Path, outcomes: Mapping[Run, Outcome], *, only: Collection[str] | None = None) -> None:
    """Writes each run with its outcome.

    Args:
        path: of the file, in JSON.
        outcomes: of the runs that are reported.
        only: the names of the metrics to keep; all, if not given.
    """
    lines = []
    for run, outcome in outcomes.items():
        values = asdict(outcome)
        if only is not None:
            kept = partial(_kept, only)
            values |= {kind: kept(values[kind]) for kind in _MEASURED}
            values |= {kind: {name: kept(one) for name, one in values[kind].items()} for kind in _AT_POINTS}
        lines.append(json.dumps({**asdict(run), "folder": run.folder.as_posix(), **values}))
    write(path, "[\n" + ",\n".join(lines) + "\n]\n")


def _kept(only: Collection[str], values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in only}


def read_results(path: Path) -> dict[Run, Outcome]:
    """What `save_results` wrote.

    Raises:
        RecipeError: the file is not there, or not of this kind.
    """
    try:
        rows = json.loads(path.read_text())
        split = [({name: row.pop(name) for name in Run.__dataclass_fields__}, row) for row in rows]
        return {Run(**{**run, "folder": Path(run["folder"])}): Outcome(**outcome) for run, outcome in split}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecipeError(f"{path} is no file of a study's results ({type(error).__name__}: {error}).") from None
