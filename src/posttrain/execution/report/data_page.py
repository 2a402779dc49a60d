"""The sets of a recipe as a page of HTML: every token in the colour of what it is to training."""

from __future__ import annotations

from pathlib import Path

from posttrain.execution.report.data_view import DataView, facts_of
from posttrain.execution.report.template import template
from posttrain.execution.report.texts import marked
from posttrain.train.watch.records import write


def write_data_page(path: Path, seen: DataView, *, title: str) -> None:
    """Writes the page.

    Raises:
        CheckpointError: it cannot be written.
    """
    facts = [list(facts_of(one)) for one in seen.sets]
    write(path, template("data.html.jinja").render(seen=seen, facts=facts, title=title, marked=marked))
