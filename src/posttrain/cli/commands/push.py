"""`posttrain push`: a model to the hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from posttrain.cli.model_options import At, What, chosen_model
from posttrain.cli.screen import say
from posttrain.errors import RecipeError


def push(
    model: What,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the hub; made where it is not there.")],
    at: At = None,
    public: Annotated[bool, typer.Option("--public", help="A new repository is private otherwise.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send a run's model to the hub, with its card: shows what would go, asks, and is private unless told."""
    chosen = chosen_model(model, at)
    from posttrain.execution.use.pushing import packed, send

    parcel = packed(chosen, repository)
    for name, size in parcel.files:
        say(f"{size:>16,}  {name}")
    kind = "public" if public else "private"
    say(f"{parcel.size:>16,}  bytes from {parcel.folder}, to {repository} ({kind}, if it is made now)")
    if not yes:
        if not sys.stdin.isatty():
            raise RecipeError("push: nobody can be asked here; --yes sends it.")
        if not typer.confirm("Send it?"):
            say("Nothing was sent.")
            return
    say(f"Model: {send(parcel, public=public)}")
