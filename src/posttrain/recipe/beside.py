"""What a recipe reads that lies beside its file: data and code, which go where the recipe goes."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path

from posttrain.recipe.code import own_paths, parts_of
from posttrain.recipe.recipe import Recipe
from posttrain.settings.data import PathSource
from posttrain.train.schedules.table import Table


def files_beside(recipe: Recipe, file: Path) -> dict[Path, str]:
    """Files in the folder of the recipe's file, and below it, that the recipe names from there; each with that name.

    Data that are named from the working folder are not among them, nor what is named by its whole path.
    """
    here, text = os.path.abspath(file.parent), file.read_text(encoding="utf-8")
    found = {path: os.path.relpath(path, here) for path in _named(recipe) if os.path.isabs(path) and path not in text}
    return {Path(path): name for path, name in found.items() if os.path.isfile(path) and not name.startswith(os.pardir)}


def _named(recipe: Recipe) -> Iterator[str]:
    for path in own_paths(recipe):
        yield path.rpartition(":")[0]
    for part in parts_of(recipe):
        if isinstance(part, Table):
            yield part.path
        if isinstance(part, PathSource):
            for path in [part.path] if isinstance(part.path, str) else part.path:
                yield from glob.glob(f"{path}/*") if os.path.isdir(path) else sorted({path, *glob.glob(path)})
