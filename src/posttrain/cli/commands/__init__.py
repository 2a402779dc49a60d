"""All commands: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Callable

from posttrain.cli.commands import compare, eval_, list_, run, schema, validate

COMMANDS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("run", run.run),
    ("validate", validate.validate),
    ("compare", compare.compare),
    ("list", list_.list_),
    ("schema", schema.schema),
    ("eval", eval_.eval_),
)
