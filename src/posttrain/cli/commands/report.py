"""`posttrain report`: a run, or several beside each other, as one page of HTML."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.screen import say
from posttrain.errors import RecipeError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Folders of runs, finished or not.")],
    output: Annotated[Path | None, typer.Option(help="The file; one run's is report.html in its folder.")] = None,
) -> None:
    """Write what runs have in their folders as one page of HTML that needs no network: curves, results, answers, warnings."""
    if output is None and len(runs) > 1:
        raise RecipeError("report: of several runs, --output says which file is written.")
    if len({run.resolve() for run in runs}) < len(runs):
        raise RecipeError("report: a run is given twice.")
    from posttrain.execution.report.page import REPORT, rendered
    from posttrain.execution.report.record import Record
    from posttrain.train.watch.records import write

    page = rendered([Record.of(run) for run in runs])
    path = runs[0] / REPORT if output is None else output
    write(path, page)
    say(f"Report: {path.resolve()}")
