"""All commands: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Callable

from posttrain.cli.commands import compare, data, eval_, list_, report, run, schema, validate

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("run", run.run),
    ("validate", validate.validate),
    ("data", data.data),
    ("compare", compare.compare),
    ("report", report.report),
    ("list", list_.list_),
    ("schema", schema.schema),
    ("eval", eval_.eval_),
)
