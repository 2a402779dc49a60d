"""`posttrain merge`: several models made into one by a formula; or an adapter folded into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posttrain.cli.model_options import At, check_dtype, chosen_model
from posttrain.cli.options import begun
from posttrain.cli.screen import say
from posttrain.errors import RecipeError

OUTPUT = "The folder of the whole model; it must not be there yet."
WEIGHTS = "One for each model, as 0.3,0.7: shares of an average, or factors of task vectors."


def merge(
    models: Annotated[list[str], typer.Argument(metavar="RUN_OR_MODEL…", help="Folders of runs or models, or hub names.")],
    output: Annotated[Path, typer.Option("--output", "-o", help=OUTPUT)],
    method: Annotated[str | None, typer.Option(help="The formula: a name of `posttrain list merges`.")] = None,
    base: Annotated[str | None, typer.Option(help="The model that the others were trained from.")] = None,
    weights: Annotated[str | None, typer.Option(help=WEIGHTS)] = None,
    alpha: Annotated[list[float], typer.Option(help="Of wise_ft; several make a folder each below --output.")] = [],  # noqa: B006
    t: Annotated[float | None, typer.Option("--t", help="Of slerp: 0 is the first model, 1 the second.")] = None,
    density: Annotated[float | None, typer.Option(help="The share of a task vector that ties or dare keeps.")] = None,
    agree: Annotated[bool | None, typer.Option("--agree", help="Of dare: average what agrees in sign.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of what dare drops.")] = None,
    at: At = None,
    dtype: Annotated[str | None, typer.Option(help="Of what is written: float32 or bfloat16.")] = None,
) -> None:
    """Merge models by --method; or without one fold an adapter into its base. What is written is proved."""
    options = {"base": base, "weights": _numbers(weights), "t": t, "density": density, "agree": agree, "seed": seed}
    given = {name: value for name, value in {**options, "alpha": alpha or None}.items() if value is not None}
    if dtype is not None:
        check_dtype(dtype)
    if method is None:
        _fold(models, given, output, at, dtype or "float32")
        return
    from posttrain.execution.use.merged import asked_for

    given |= {"method": method, "models": models, **({} if dtype is None else {"dtype": dtype})}
    asked = asked_for(given, output)
    places = {
        place: chosen_model(place, at if (Path(place).expanduser() / "recipe.yaml").is_file() else None)
        for place in (*models, *([base] if base is not None else []))
    }
    say(f"{begun()}: {asked[0][0].told}: loading torch and transformers, which takes a while at first …")
    from posttrain.execution.use.merged import merge_chosen

    for config, folder in asked:
        for note in merge_chosen(config, places, folder):
            say(note)
        say(f"Model: {folder.resolve()}, each tensor as the formula gives it")


def _fold(models: list[str], given: dict[str, Any], output: Path, at: str | None, dtype: str) -> None:
    if len(models) > 1 or given:
        what = f"--{next(iter(given))}" if given else "several models"
        raise RecipeError(f"merge: {what} need --method, a name of `posttrain list merges`.")
    chosen = chosen_model(models[0], at if at is not None else _adapter_of(models[0]))
    say(f"{begun()}: {chosen.name}: loading torch and transformers, which takes a while at first …")
    from posttrain.execution.use.merging import merge as merged

    merged(chosen, output, dtype)
    say(f"Model: {output.resolve()}, with the log-probs of adapter and base")


def _numbers(text: str | None) -> list[float] | None:
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"--weights {text}: numbers are expected, as 0.3,0.7.") from None


def _adapter_of(model: str) -> str | None:
    """Of a finished run the adapter is meant, if nothing else is said; of another one its newest checkpoint."""
    return "adapter" if (Path(model).expanduser() / "final").is_dir() else None
