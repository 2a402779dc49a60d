"""Recipes by a bare name: those of recipes/ here and of the folders in it, then those that travel with the package."""

from __future__ import annotations

import os
from pathlib import Path

from posttrain.errors import RecipeError
from posttrain.settings.other_names import nearest

HERE, SHIPPED = Path("recipes"), Path(__file__).parent / "shipped"
PATTERNS = ("*.yaml", "*/*.yaml")
"""Where recipes lie in such a folder; one of the folders in it is a group of them."""
GROUPS = ("", "start", "methods", "written", "gpu")
"""In the order in which they are listed; others come after them."""


def known_recipes() -> dict[str, Path]:
    """The file of each name, by groups; one in recipes/ stands before one of the package.

    A name that several files in recipes/ have is that of the first here; `recipe_file` refuses it.
    """
    found: dict[str, Path] = {}
    for folder in (HERE, SHIPPED):
        for path in _recipes_in(folder):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items(), key=lambda one: (_place(group_of(one[1])), one[0])))


def group_of(path: Path) -> str:
    """The folder that a recipe with a name lies in, within recipes/; of one in recipes/ itself, nothing."""
    return "" if path.parent in (HERE, SHIPPED) else path.parent.name


def is_shipped(path: Path) -> bool:
    """Whether it travels with the package, and is found by its name wherever that is installed."""
    return path.is_relative_to(SHIPPED)


def recipe_file(given: str | Path) -> Path:
    """The file of a recipe: a path is itself; a name without folder and ending is looked up, where there is no such file.

    Raises:
        RecipeError: no recipe has the name, or several in recipes/ have it.
    """
    path = Path(given)
    if os.path.isfile(path) or path.name != str(given) or path.name.endswith((".yaml", ".yml")):
        return path
    known = known_recipes()
    if path.name not in known:
        near = nearest(path.name, known)
        hint = f"did you mean {near}?" if near else "`posttrain list recipes` has their names"
        raise RecipeError(f"{given}: there is no such file, and no recipe of this name; {hint}")
    alike = [str(one) for one in _recipes_in(HERE) if one.stem == path.name]
    if len(alike) > 1:
        raise RecipeError(f"{given}: {' and '.join(alike)} both have this name. Give the path of the one that is meant.")
    return known[path.name]


def _recipes_in(folder: Path) -> list[Path]:
    return [path for pattern in PATTERNS for path in sorted(folder.glob(pattern))]


def _place(group: str) -> tuple[int, str]:
    return (GROUPS.index(group) if group in GROUPS else len(GROUPS), group)
