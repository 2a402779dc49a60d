"""Completions and evaluations as tables of trackers, each in the form that it has for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.train.watch.records import HALF_CHARACTERS
from posttrain.train.watch.redaction import shareable

STEP = "train/global_step"  # the axis that transformers gives wandb and trackio


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one step; every one begins with the step."""

    name: str
    step: int
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def completions(step: int, samples: Sequence[Mapping[str, Any]]) -> Table:
    """Those that a step and the ones after it train on, with each reward; what could not be graded has none."""
    names = list(dict.fromkeys(name for sample in samples for name in sample["rewards"]))
    columns = ["step", "question", "prompt", "completion", "reward", *names, "tokens", "finish"]
    rows = [
        [
            step,
            *map(_text, (sample["where"], sample["prompt"], sample["completion"])),
            *(None if not sample["graded"] else one for one in (sample["reward"], *map(sample["rewards"].get, names))),
            sample["tokens"],
            sample["finish"],
        ]
        for sample in samples
    ]
    return Table("completions", step, columns, rows)


def evaluation(step: int, metrics: Mapping[str, float]) -> Table:
    """A row for each metric of each set, with its 95 % interval where it has one."""
    rows: list[list[Any]] = []
    for name, value in metrics.items():
        kind, _, rest = name.partition("/")
        held_out, _, metric = rest.partition("/")
        if kind == "eval" and not name.endswith(("/low", "/high")):
            rows.append([step, held_out, metric, value, metrics.get(f"{name}/low"), metrics.get(f"{name}/high")])
    return Table("evaluations", step, ["step", "set", "metric", "value", "low", "high"], rows)


def _text(text: str) -> str:
    return shareable(text.encode("utf-8", HALF_CHARACTERS).decode("utf-8"))


@dataclass(frozen=True, slots=True)
class Kind:
    """What one of transformers' callbacks is handed beside the numbers: a table, and the end of its tracker's run.

    environment: keeps the tracker from noting the command's words and this machine's folders by itself, where it is not set.
    """

    send: Callable[[Any, Table], None]
    end: Callable[[Any], None] = lambda theirs: None
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


def _to_wandb(theirs: Any, table: Table) -> None:
    shown = theirs._wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
    theirs._wandb.log({table.name: shown, STEP: table.step})


def _to_trackio(theirs: Any, table: Table) -> None:
    shown = theirs._trackio.Table(columns=list(table.columns), data=[list(row) for row in table.rows])
    theirs._trackio.log({table.name: shown, STEP: table.step})


def _to_mlflow(theirs: Any, table: Table) -> None:
    columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}
    theirs._ml_flow.log_table(columns, artifact_file=f"{table.name}.json")


def _to_tensorboard(theirs: Any, table: Table) -> None:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    text = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    theirs.tb_writer.add_text(table.name, text, table.step)
    theirs.tb_writer.flush()


def _cell(value: Any) -> str:
    text = "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


KINDS = {
    "WandbCallback": Kind(_to_wandb, lambda theirs: theirs._wandb.finish(), {"WANDB__DISABLE_META": "true"}),
    "TrackioCallback": Kind(_to_trackio),
    "MLflowCallback": Kind(_to_mlflow, environment={"MLFLOW_RUN_CONTEXT": '{"mlflow.source.name": "posttrain"}'}),
    "TensorBoardCallback": Kind(_to_tensorboard),
}
"""By the name of transformers' callback."""
