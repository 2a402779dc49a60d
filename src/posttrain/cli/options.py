"""Arguments and options that several commands have."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from posttrain.recipe import Recipe

RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help="A file in YAML, or a name of `posttrain list recipes`.")]
Overrides = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as a.b=value.")]
AllowRemoteEngine = Annotated[
    bool, typer.Option("--allow-remote-engine", help="A rollout server on another machine may be used.")
]
AllowRemoteEnvironment = Annotated[
    bool, typer.Option("--allow-remote-environment", help="An environment on another machine may play.")
]
AllowUnjailed = Annotated[
    bool,
    typer.Option("--allow-unjailed-code", help="Programs that the policy writes may run where there is no jail."),
]
AllowCode = Annotated[bool, typer.Option("--allow-code", help="Code that the recipe names by path may run.")]


def checked_recipe(path: str, overrides: list[str], output_dir: str | None = None, processes: int | None = None) -> Recipe:
    """The recipe, with what the command line has in its place.

    Raises:
        RecipeError: with a line for each fault.
        SetupError: with a line for each package that it needs and that is not installed.
    """
    from posttrain.recipe import load_recipe
    from posttrain.recipe.packages import check_packages

    if output_dir is not None:
        overrides = [*overrides, f"output_dir={json.dumps(output_dir)}"]
    if processes is not None:
        overrides = [*overrides, f"distributed.processes={processes}"]
    recipe = load_recipe(path, overrides)
    check_packages(recipe)
    return recipe


def begun() -> str:
    """The version, and what devices the machine has, as far as that is known before torch is imported."""
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    devices = f"{gpus} GPU{'s' * (gpus > 1)}" if gpus else f"{os.cpu_count()} processors"
    return f"posttrain {importlib.metadata.version('posttrain')} on {devices}"


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """While entered, torch and what stands on it is imported: to look for garbage in it takes about as long as that itself.
    What was imported is looked at again at the end of the process alone.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        atexit.register(gc.unfreeze)  # extensions that watch for leaks want to see all go
        atexit.register(gc.disable)  # Python looks once more after this, whatever is said here


def summary(recipe: Recipe) -> str:
    """What is trained, in a few words."""
    written = [stage for stage in recipe.stages if stage.round in (None, 1)]
    names = [one.algorithm.label if one.merge is None else f"merge by {one.merge.method}" for one in written] or [
        recipe.algorithm.label
    ]
    times = f", {recipe.rounds.times} times over," if recipe.rounds is not None else ""
    return f"{', then '.join(names)}{times} on {recipe.model.label}"
