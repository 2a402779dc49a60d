"""Recipes by a bare name: those of the folder recipes/ here, then those that travel with the package."""

from __future__ import annotations

import os
from pathlib import Path

from posttrain.errors import RecipeError
from posttrain.settings.other_names import nearest

HERE, SHIPPED = Path("recipes"), Path(__file__).parent / "shipped"


def known_recipes() -> dict[str, Path]:
    """The file of each name; one in recipes/ stands before one of the package."""
    found = {path.stem: path for folder in (SHIPPED, HERE) for path in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def recipe_file(given: str | Path) -> Path:
    """The file of a recipe: a path is itself; a name without folder and ending is looked up, where there is no such file.

    Raises:
        RecipeError: no recipe has the name.
    """
    path = Path(given)
    if os.path.isfile(path) or path.name != str(given) or path.name.endswith((".yaml", ".yml")):
        return path
    known = known_recipes()
    if path.name not in known:
        near = nearest(path.name, known)
        hint = f"did you mean {near}?" if near else "`posttrain list recipes` has their names"
        raise RecipeError(f"{given}: there is no such file, and no recipe of this name; {hint}")
    return known[path.name]
