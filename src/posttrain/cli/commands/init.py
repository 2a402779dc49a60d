"""`posttrain init`: a recipe to begin with."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.screen import say
from posttrain.errors import RecipeError

FIRST = "quickstart"


def init(
    name: Annotated[str | None, typer.Argument(help="Of the recipe; its runs are in runs/NAME.")] = None,
    from_: Annotated[str | None, typer.Option("--from", metavar="RECIPE", help="One of `posttrain list recipes`.")] = None,
    output: Annotated[Path | None, typer.Option(help="The file; NAME.yaml, if not given.")] = None,
) -> None:
    """Write a recipe with its comments, to be changed; asks where something is not given, on a terminal."""
    from posttrain.recipe import load_recipe
    from posttrain.recipe.beside import files_beside
    from posttrain.recipe.by_name import recipe_file

    asks = sys.stdin.isatty()
    if from_ is None and asks:
        from posttrain.cli.commands.list_ import list_

        list_("recipes")
        from_ = typer.prompt("Which one is nearest to what you want", default=FIRST)
    source = recipe_file(from_ or FIRST)
    if not source.is_file():
        raise RecipeError(f"init --from {from_}: there is no such file.")
    name = str(name or (typer.prompt("Its name", default=source.stem) if asks else source.stem))
    if re.fullmatch(r"[\w.-]+", name) is None:
        raise RecipeError(f"init {name}: letters, digits, - and _ are expected; --output says where the file goes.")
    path = output or Path(f"{name}.yaml")
    if path.exists():
        raise RecipeError(f"init: {path} is there already. Choose another name or --output.")
    text = _named(source.read_text(encoding="utf-8"), name)
    beside = {file: path.parent / name for file, name in files_beside(load_recipe(source), source).items()}
    for file, copy in beside.items():
        if copy.exists() and copy.read_bytes() != file.read_bytes():
            raise RecipeError(f"init: {copy} is there already, and is another one than that of {source}. Give --output.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    for file, copy in beside.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not copy.exists():
            shutil.copyfile(file, copy)
            say(f"Beside it, for it reads it: {copy}")
    load_recipe(path)
    say(f"Recipe: {path}. Next: posttrain data {path}; posttrain run {path} --dry-run; posttrain run {path}")


def _named(text: str, name: str) -> str:
    """The text of a recipe with another folder for its runs, everything else as it is."""
    lines = [f"output_dir: runs/{name}" if line.startswith("output_dir:") else line for line in text.splitlines()]
    if not any(line.startswith("output_dir:") for line in lines):
        lines.append(f"output_dir: runs/{name}")
    return "\n".join(lines) + "\n"
