"""`posttrain validate`: whether a recipe can be run, as far as that can be told without its model and data."""

from __future__ import annotations

from posttrain.cli.options import AllowCode, Overrides, RecipePath, checked_recipe, summary
from posttrain.cli.screen import say


def validate(recipe: RecipePath, overrides: Overrides = [], allow_code: AllowCode = False) -> None:  # noqa: B006
    """Check RECIPE without loading anything; with --allow-code, load its code and check that too."""
    from posttrain.recipe.code import own_paths, try_code

    checked = checked_recipe(recipe, overrides)
    paths = own_paths(checked)
    if allow_code:
        for one in checked.stages or [checked]:
            try_code(one)
    say(f"{recipe} is valid: {summary(checked)}.")
    if paths and not allow_code:
        say(f"Its code was not loaded, and is needed to run it: {', '.join(paths)}. With --allow-code it is checked as well.")
