"""The card of a run's final model: README.md in `final/`, and in the adapter's folder where there is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from posttrain.execution.folder.starts import versions
from posttrain.execution.report.curves import number_of
from posttrain.execution.report.record import Record
from posttrain.execution.report.results import result_rows
from posttrain.execution.report.texts import printable
from posttrain.train.watch.records import write
from posttrain.train.watch.redaction import shareable

CARD = "README.md"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_REPORTED = re.compile(r"eval/(?P<set>.+)/(?P<metric>pass@\d+|majority@\d+|nll|preference/accuracy)")
_TEMPLATE = Path(__file__).parent / "templates" / "card.md.jinja"


def write_card(folder: Path) -> None:
    """Writes the card of the run in this folder beside its final model.

    Raises:
        CheckpointError: it is no run's folder, or the file cannot be written.
    """
    record = Record.of(folder)
    for place in (folder / "final", folder / "final" / "adapter"):
        if place.is_dir():
            write(place / CARD, card_of(record, adapter=place.name == "adapter"))


def card_of(record: Record, *, adapter: bool = False) -> str:
    """The card, without secrets; names of folders of this machine are not in it."""
    shown = partial(_shown, folder=record.folder)
    data = ModelCardData(
        base_model=_hub_name(record.model),
        datasets=sorted(set(_data_sets(record))) or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        tags=["posttrain", *dict.fromkeys(stage.algorithm for stage in record.stages)],
        model_name=record.name,
        eval_results=list(_results(record)) or None,
    )
    results = result_rows([record])
    card = ModelCard.from_template(
        data,
        template_path=str(_TEMPLATE),
        name=_cell(shown(record.name)),
        adapter=adapter,
        model=_cell(shown(_hub_name(record.model) or Path(record.model).name)),
        stages=[(_cell(shown(one.name)), _cell(shown(one.algorithm)), one.last_step) for one in record.stages],
        tokens={name: number_of(value) for name, value in record.tokens.items()},
        columns=[_cell(shown(column)) for column in results.columns],
        rows=[(_cell(shown(name)), cells) for name, cells in results.rows],
        versions=(record.stages[-1].starts[-1]["versions"] if record.stages[-1].starts else versions()),
        recipe=shown(record.recipe_text),
    )
    return str(card)


def _shown(text: str, *, folder: Path) -> str:
    """Without secrets and what does not print; nothing in it ends a block of code."""
    text = printable(shareable(str(text))).replace("```", "'''")
    return text.replace(str(folder.resolve().parent), "…")


def _cell(text: str) -> str:
    """As one cell of a table in Markdown, without HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _hub_name(name: str | None) -> str | None:
    """A model's or data set's name on the hub; None for what is not there, a folder of this machine above all."""
    if name is None or HUB_NAME.fullmatch(name) is None or name.startswith((".", "~")) or Path(name).exists():
        return None
    return name


def _data_sets(record: Record) -> Iterator[str]:
    for stage in record.stages:
        train = (stage.recipe.get("data") or {}).get("train") or {}
        for source in (train.get("mix") or {"": train}).values():
            if (found := _hub_name(source.get("hub"))) is not None:
                yield found


def _results(record: Record) -> Iterator[EvalResult]:
    points: list[Any] = list(record.points.values())
    for name, value in (points[-1] if points else {}).items():
        found = _REPORTED.fullmatch(name)
        if found is not None and value == value:
            yield EvalResult(
                task_type="text-generation",
                dataset_type=found["set"],
                dataset_name=found["set"],
                metric_type=found["metric"],
                metric_value=round(float(value), 6),
            )
