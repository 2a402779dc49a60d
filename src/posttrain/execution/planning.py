"""What a run would do, told before any of it is done; transformers' trainer, which brings peft and more, is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posttrain.errors import RecipeError
from posttrain.execution.folder.same_recipe import check_folder, check_ground
from posttrain.execution.numbers import settled
from posttrain.execution.prepare.arguments import check_arguments
from posttrain.execution.prepare.preparation import prepare
from posttrain.execution.use.merged import check_places
from posttrain.recipe.code import check_permitted
from posttrain.recipe.recipe import Recipe, Stage
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import hearing


def plan(
    recipe: Recipe,
    *,
    allow_remote_engine: bool = False,
    allow_code: bool = False,
    allow_remote_environment: bool = False,
    allow_unjailed_code: bool = False,
) -> dict[str, Any]:
    """What `run` would do, after all the checks that it makes; nothing is written but rows that are too many for memory.

    Raises:
        PosttrainError: as `run` would.
    """
    permissions = Permissions(allow_remote_engine, allow_code, allow_remote_environment, allow_unjailed_code)
    check_permitted(recipe, permissions)
    check_ground(Path(recipe.output_dir))
    check_folder(Path(recipe.output_dir), recipe)
    return planned(recipe, permissions)


def planned(recipe: Recipe, permissions: Permissions) -> dict[str, Any]:
    """The same of a recipe whose code and folder have been looked at."""
    if recipe.stages:  # later stages start from models that are not there yet, of the same kind as the first
        written = [stage for stage in recipe.stages if stage.round in (None, 1)]
        plans = {stage.name: _of_stage(stage, recipe, permissions) for stage in written}
        stages = {f"{name}: {key}": value for name, rows in plans.items() for key, value in rows.items()}
        return {**({} if recipe.rounds is None else {"rounds": recipe.rounds.told}), **stages}
    recipe = settled(recipe)
    with hearing() as heard:
        prepared = prepare(recipe, permissions)
        prepared.close()
        check_arguments(recipe, prepared.steps, checkpointing=prepared.footprint().checkpointing.on)
        rates = _rates(recipe, prepared.model)
    told = {"warnings": [one.sentence for one in heard]} if heard else {}
    return {**prepared.plan(), **rates, **told}


def _rates(recipe: Recipe, model: Any) -> dict[str, Any]:
    """Which parameters have which learning rate, where the recipe says so."""
    from posttrain.train.optimizers._groups import rates_of, told

    if not recipe.training.parameters:
        return {}
    try:
        return {"parameters": told(rates_of(model, recipe.training.parameters, recipe.training.learning_rate))}
    except ValueError as error:
        raise RecipeError(f"training.{error}") from error


def _of_stage(stage: Stage, whole: Recipe, permissions: Permissions) -> dict[str, Any]:
    if stage.merge is None:
        return planned(_from_the_first(stage, whole), permissions)
    check_places(stage.merge.places, made=[one.output_dir for one in whole.stages])
    return {"merge": stage.merge.told, "output": stage.output_dir}


def _from_the_first(stage: Recipe, whole: Recipe) -> Recipe:
    """A stage with the model that the first one starts from, in its own numbers, with its own teacher and reference."""
    own = {name: getattr(stage.model, name) for name in ("dtype", "compute", "teachers", "reference")}
    model = whole.model.model_copy(update=own)
    return stage.model_copy(update={"model": model, "stages": []})
