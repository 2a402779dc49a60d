"""`report.html`: one file that needs no other one, and no network; nothing in it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from posttrain.execution.report.curves import number_of, panels
from posttrain.execution.report.record import Record, Stage, spread, told_apart
from posttrain.execution.report.results import result_rows
from posttrain.execution.report.template import template
from posttrain.execution.report.texts import shortened
from posttrain.train.watch.records import write

REPORT = "report.html"
POINTS, QUESTIONS, LISTED = 4, 8, 200  # steps side by side, questions of a set, and lines of a table


def write_report(folder: Path) -> Path:
    """Writes the page of one run into its folder.

    Raises:
        CheckpointError: it is no run's folder, or cannot be written.
    """
    write(folder / REPORT, rendered([Record.of(folder)]))
    return folder / REPORT


def rendered(records: Sequence[Record]) -> str:
    """The page of one run, or of several beside each other; without secrets, and without characters that a screen obeys."""
    records = told_apart(records)
    now = datetime.now(UTC).isoformat(timespec="minutes")
    runs, (drawn, constant) = [_facts(record) for record in records], panels(records)
    return template("page.html.jinja").render(
        runs=runs, panels=drawn, constant=constant, results=result_rows(records), written=now
    )


def _facts(record: Record) -> Mapping[str, Any]:
    return {
        "name": record.name,
        "summary": list(_summary(record)),
        "answers": list(_answers(record)),
        "stages": [_of_stage(stage) for stage in record.stages],
        "recipe": record.recipe_text,
    }


def _summary(record: Record) -> Iterator[tuple[str, str]]:
    yield "state", record.state
    yield "model", record.model
    yield "algorithm", " → ".join(stage.algorithm for stage in record.stages)
    yield "steps", number_of(sum(stage.last_step for stage in record.stages))
    for name in ("in steps", "trained on", "sampled"):
        yield f"tokens {name}", number_of(record.tokens.get(name, 0))
    yield "seconds of steps", number_of(sum(stage.seconds["steps"] for stage in record.stages))
    yield "warnings", str(sum(len(stage.warnings) for stage in record.stages))


def _of_stage(stage: Stage) -> Mapping[str, Any]:
    return {
        "name": stage.name,
        "algorithm": stage.algorithm,
        "collected": [(step, [_answer(row) for row in rows]) for step, rows in stage.collected(POINTS).items()],
        "seconds": stage.seconds,
        "starts": [
            {name: start.get(name, "") for name in ("time", "from_step", "processes", "device", "versions")}
            for start in stage.starts
        ],
        "steps": stage.last_step,
        "warnings": [(told.get("step"), told.get("sentence", "")) for told in stage.warnings[:LISTED]],
        "more_warnings": max(0, len(stage.warnings) - LISTED),
        "left_out": _counted(stage.left_out),
        "left_out_rows": [(line.get("where", ""), line.get("reason", "")) for line in stage.left_out[:LISTED]],
        "more_left_out": max(0, len(stage.left_out) - LISTED),
    }


def _answers(record: Record) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Of each evaluation set, the first answers to the same questions at several points of the run."""
    for name in dict.fromkeys(name for stage in record.stages for name in stage.sets()):
        points: list[tuple[str, Sequence[Mapping[str, Any]]]] = []
        for stage in record.stages:
            of = f"{stage.name}, " if len(record.stages) > 1 else ""
            points += [(f"{of}step {step}", rows) for step, rows in stage.answers(name).items() if step or not points]
        yield name, list(_side_by_side(spread(points, POINTS)))


def _side_by_side(points: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[Mapping[str, Any]]:
    first = [(title, {row.get("where", ""): row for row in reversed(rows)}) for title, rows in points]
    questions = list(dict.fromkeys(row.get("where", "") for row in points[-1][1]))
    for where in spread(questions, QUESTIONS):
        answers = [(title, rows[where]) for title, rows in first if where in rows]
        example = answers[-1][1]
        yield {
            "where": where,
            "prompt": shortened(str(example.get("prompt", ""))),
            "reference": example.get("reference"),
            "answers": [(title, _answer(row)) for title, row in answers],
        }


def _answer(row: Mapping[str, Any]) -> Mapping[str, Any]:
    verdict = row.get("verdict") or {True: "right", False: "wrong"}.get(row.get("correct"), "")  # type: ignore[call-overload]
    return {
        "where": row.get("where", ""),
        "prompt": shortened(str(row.get("prompt", ""))),
        "text": shortened(str(row.get("completion", ""))),
        "verdict": verdict,
        "kind": "right" if verdict == "right" else "wrong" if verdict == "wrong" else "",
        "rewards": row.get("rewards", {}) if row.get("graded", True) else {},
        "reward": row.get("reward") if row.get("graded", True) else None,
        "tokens": row.get("tokens", "?"),
        "cut_off": row.get("finish") == "length",
        "prefix": row.get("prefix_tokens", 0),
    }


def _counted(left_out: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for line in left_out:
        key = str(line.get("set", "")), str(line.get("what", "")).replace("_", " ")
        counts[key] = counts.get(key, 0) + 1
    return counts
