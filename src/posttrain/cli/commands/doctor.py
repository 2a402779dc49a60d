"""`posttrain doctor`: what of this machine a training would stumble over."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Column, Table
from rich.text import Text

from posttrain.cli.options import begun
from posttrain.cli.screen import err, out, say

STYLES = {"good": "green", "note": "yellow", "bad": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Import no optional package, ask no hub, train nothing.")] = False,
) -> None:
    """Look at versions, devices, memory, disk, hub and threads, and make three steps of training: exit code 4 where something
    is bad.
    """
    err.print(f"{begun()}: looking, which takes a minute …", markup=False)
    from posttrain.cli import doctor as looking
    from posttrain.errors import SetupError

    found = list(looking.findings(train=not quick, deep=not quick))
    if as_json:
        print(json.dumps(looking.as_json(found), indent=2))
    else:
        table = Table("", Column("what", no_wrap=True), "found", "what to do")
        for one in found:
            table.add_row(Text(one.level, style=STYLES[one.level]), Text(one.what), Text(one.found), Text(one.advice))
        out.print(table)
    bad = [one.what for one in found if one.level == "bad"]
    if bad:
        raise SetupError(f"{len(bad)} of {len(found)} findings are bad: {', '.join(bad)}.")
    if not as_json:
        say("Nothing stands in the way. posttrain init writes a recipe.")
