"""The day of a run: what chat templates write that write a date, the same from its first start to its end."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TypeVar

import yaml

from posttrain.execution.folder.recipe_file import kept_values
from posttrain.recipe.recipe import Recipe
from posttrain.settings.data.day import today

R = TypeVar("R", bound=Recipe)


def day_of(folder: Path) -> datetime.date:
    """The day on which the folder's run began; today, where none has."""
    try:
        values = kept_values(folder)
        return datetime.date.fromisoformat(values["data"]["date"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):  # whether it can be read is checked elsewhere
        return today()


def dated(recipe: R, day: datetime.date) -> R:
    """The recipe, and its stages, with a day where they name none."""
    data = recipe.data if recipe.data.date else recipe.data.model_copy(update={"date": day})
    return recipe.model_copy(update={"data": data, "stages": [dated(stage, day) for stage in recipe.stages]})
