"""`posttrain data`: the sets of a recipe as a model reads them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import AllowCode, AllowRemoteEnvironment, AllowUnjailed, Overrides, RecipePath, begun, summary
from posttrain.cli.screen import out, say
from posttrain.errors import RecipeError


def data(
    recipe: RecipePath,
    overrides: Overrides = [],  # noqa: B006  (typer reads the default)
    rows: Annotated[int, typer.Option(min=1, help="That are shown of each set.")] = 3,
    html: Annotated[Path | None, typer.Option(help="A file for all of it, with tokens in colours.")] = None,
    stage: Annotated[str | None, typer.Option(help="Of a recipe that has stages; the first, if not given.")] = None,
    allow_code: AllowCode = False,
    allow_remote_environment: AllowRemoteEnvironment = False,
    allow_unjailed_code: AllowUnjailed = False,
) -> None:
    """Show RECIPE's data as the model reads it: tokens with their mask, what is left out, what repeats, what leaks."""
    from posttrain.recipe import load_recipe
    from posttrain.recipe.code import check_permitted
    from posttrain.settings.doors.permissions import Permissions

    whole = load_recipe(recipe, overrides)  # packages that training needs may be missing here
    permissions = Permissions(code=allow_code, remote_environment=allow_remote_environment, unjailed=allow_unjailed_code)
    check_permitted(whole, permissions)
    stages = {one.name: one for one in whole.stages}
    if stage is not None and stage not in stages:
        raise RecipeError(f"data --stage {stage}: the recipe has {', '.join(stages) or 'no stages'}.")
    chosen = stages[stage] if stage is not None else next(iter(stages.values()), whole)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    title = next((name for name, one in stages.items() if one is chosen), None)
    say(f"{begun()}: {summary(whole)}" + (f", stage {title}" if title else ""))
    from posttrain.cli.tokens import set_texts
    from posttrain.execution.prepare.preparation import looked_at
    from posttrain.execution.report.data_page import write_data_page
    from posttrain.execution.report.data_view import view

    with_model = chosen.model_copy(update={"model": whole.model}) if stages else chosen
    sets, tokenizer, ends = looked_at(with_model, permissions)
    seen = view(sets, tokenizer, ends, rows)
    for part in set_texts(seen):
        out.print(part, soft_wrap=True)
    if html is not None:
        write_data_page(html, seen, title=Path(recipe).stem)
        say(f"Page: {html.resolve()}")
