"""`posttrain validate`: whether a recipe can be run, as far as that can be told without its model and data."""

from __future__ import annotations

from posttrain.cli.options import AllowCode, AllowUnjailed, Overrides, RecipePath, checked_recipe, summary
from posttrain.cli.screen import say


def validate(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006  (typer reads the default)
    allow_code: AllowCode = False,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Check RECIPE without loading anything; with --allow-code, load its code and check that too."""
    from posttrain.recipe.code import check_jails, own_paths, try_code
    from posttrain.settings.doors.permissions import Permissions

    checked = checked_recipe(recipe, overrides)
    check_jails(checked, Permissions(unjailed=allow_unjailed_code))
    paths = own_paths(checked)
    if allow_code:
        for one in checked.stages or [checked]:
            try_code(one)
    say(f"{recipe} is valid: {summary(checked)}.")
    if paths and not allow_code:
        say(f"Its code was not loaded, and is needed to run it: {', '.join(paths)}. With --allow-code it is checked as well.")
