"""Templates of pages: everything that is put into one is escaped, without secrets, and prints."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from posttrain.execution.report.curves import number_of
from posttrain.execution.report.texts import printable
from posttrain.train.watch.redaction import shareable


@cache
def template(name: str) -> Any:
    """A template of jinja2 in templates/. `shown` is for texts that are not ours, `number` for numbers."""
    import jinja2

    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(number=number_of, shown=lambda value: printable(shareable(str(value))))
    return found.get_template(name)
