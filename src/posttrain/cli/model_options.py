"""Arguments and options of commands that use a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from posttrain.cli.screen import say
from posttrain.errors import RecipeError

if TYPE_CHECKING:
    from posttrain.execution.use.chosen import Chosen

What = Annotated[str, typer.Argument(metavar="RUN_OR_MODEL", help="A folder of a run, model or adapter, or a hub name.")]
At = Annotated[str | None, typer.Option(help="Of a run: final, best, adapter, or checkpoint-N.")]
Dtype = Annotated[str, typer.Option(help="float32 or bfloat16.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Of an answer.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Of the most probable tokens that have this probability together.")]
TopK = Annotated[int, typer.Option(min=0, help="Of the most probable tokens; 0: of all.")]
Seed = Annotated[int, typer.Option(min=0)]


def check_dtype(dtype: str) -> None:
    """Of a model that is read.

    Raises:
        RecipeError: it is none that models are read in.
    """
    if dtype not in ("float32", "bfloat16"):
        raise RecipeError(f"--dtype {dtype}: float32 or bfloat16 is expected.")


def chosen_model(what: str, at: str | None) -> Chosen:
    """The model that is meant, with what is to be said of the choice.

    Raises:
        RecipeError, CheckpointError: as `choose`.
    """
    from posttrain.execution.use.chosen import choose

    chosen = choose(what, at)
    if chosen.note:
        say(chosen.note)
    return chosen
