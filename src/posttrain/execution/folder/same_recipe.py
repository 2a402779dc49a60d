"""Whether a folder is this recipe's run, or free. No torch here: what is another's is told before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from posttrain.errors import CheckpointError
from posttrain.execution.folder.day import dated
from posttrain.execution.folder.lock import LOCK
from posttrain.execution.folder.recipe_file import kept_values
from posttrain.recipe.recipe import Recipe
from posttrain.settings.data import Mixture
from posttrain.settings.faults import faults
from posttrain.train.watch.redaction import redacted

R = TypeVar("R", bound=Recipe)
MAY_CHANGE = (
    "training.logging_steps",
    "training.report_to",
    "training.save_total_limit",
    "training.stop_when",
    "training.gradient_checkpointing",
    "training.micro_batch_tokens",
    "rollout.log_completions",
)
"""Keys that change nothing of what is trained, but for rounding. `training.max_steps` and `rounds.times` may grow as well."""
RECIPE_BY_US = "# The recipe of this run with all its keys, written by posttrain.\n"
SIGNS = ("metrics.jsonl", "left_out.jsonl", "collected.jsonl", "final", "checkpoint-*", "*/recipe.yaml")
"""Of a run, beside its recipe."""


def check_ground(folder: Path) -> None:
    """Whether a run can lie here.

    Raises:
        CheckpointError: it cannot.
    """
    ground = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not ground.is_dir() or not os.access(ground, os.W_OK):
        kind = "cannot be written to" if ground.is_dir() else "is a file"
        raise CheckpointError(f"{folder}: {ground} {kind}. Choose another output_dir.")


def check_folder(folder: Path, recipe: Recipe) -> bool:
    """Whether a run of this recipe has begun here.

    Raises:
        CheckpointError: the folder is another recipe's, or something else's.
    """
    if (folder / "recipe.yaml").is_file():
        if not (folder / "recipe.yaml").read_bytes().startswith(RECIPE_BY_US.encode()) and not _has_signs(folder):
            raise CheckpointError(
                f"{folder}/recipe.yaml is of no run, and would be overwritten by the run's own. Choose another output_dir."
            )
        check_same_recipe(folder, recipe)
        return True
    if folder.exists() and any(path.name != LOCK for path in folder.iterdir()):
        raise CheckpointError(f"{folder} is not empty and holds no run. Choose another output_dir.")
    return False


def _has_signs(folder: Path) -> bool:
    return any(next(folder.glob(sign), None) for sign in SIGNS)


def check_same_recipe(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder's run is of this recipe, but for where it lies and how it is notes; True if it is to be longer now.

    Raises:
        CheckpointError: it is not, or its recipe cannot be read.
    """
    try:
        values = kept_values(folder)
        before = type(recipe).model_validate(values)  # with the defaults of keys that are newer
    except ValidationError as error:
        raise CheckpointError(
            f"{folder}/recipe.yaml is no recipe of this version ({faults(error)[0]}). Choose another output_dir."
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}. Choose another output_dir.") from None
    if before.data.date is not None:
        recipe = dated(recipe, before.data.date)
    elif recipe.data.date is not None:  # a run of before days were kept
        before = dated(before, recipe.data.date)
    recipe = computing_as(recipe, before)
    if _has_more_rounds(before, recipe):
        return True
    then, now = _all_leaves(before), _all_leaves(recipe)
    different = _different(then, now)
    longer = "training.max_steps" in different and (now["training.max_steps"] or 0) > (then["training.max_steps"] or math.inf)
    if different != ["training.max_steps"] * longer:
        notes = "; ".join(f"{key}: {then.get(key, 'absent')} then, {now.get(key, 'absent')} now" for key in different[:4])
        raise CheckpointError(
            f"{folder} holds a run of another recipe ({notes}). Choose another output_dir. Of a run that is there, "
            "training.max_steps and rounds.times may grow, and what is logged may change."
        )
    if longer and isinstance(recipe.data.train, Mixture) and len(recipe.data.train.phases) > 1:
        raise CheckpointError(
            f"{folder} holds a run whose data.train.phases are shares of training.max_steps: with more of them other rows "
            "would have been read until now. Choose another output_dir, with final/ as model.name."
        )
    return longer


def computing_as(recipe: R, before: Recipe) -> R:
    """The recipe, and its stages, with the `model.compute` of the run that is there, where they name none."""
    stages = zip(recipe.stages, before.stages, strict=True) if len(recipe.stages) == len(before.stages) else ()
    model = recipe.model.model_copy(update={"compute": recipe.model.compute or before.model.compute})
    changed: dict[str, Any] = {"model": model, "stages": [computing_as(*pair) for pair in stages] or recipe.stages}
    return recipe.model_copy(update=changed)


def _has_more_rounds(before: Recipe, recipe: Recipe) -> bool:
    """Whether it is the same but for rounds after those that were to be; the stages have all that a round is."""
    if before.rounds is None or recipe.rounds is None or recipe.rounds.times <= before.rounds.times:
        return False
    begun = zip(before.stages, recipe.stages[: len(before.stages)], strict=True)
    rounds = before.rounds.model_copy(update={"times": recipe.rounds.times})
    return rounds == recipe.rounds and not any(_different(_all_leaves(one), _all_leaves(other)) for one, other in begun)


def _different(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    return [key for key in {**then, **now} if then.get(key) != now.get(key) and not _may_change(key)]


def _all_leaves(recipe: Recipe) -> dict[str, Any]:
    return dict(_leaves(redacted(recipe.model_dump(mode="json"))))


def _may_change(key: str) -> bool:
    return key == "output_dir" or any(f".{name}." in f".{key}." for name in MAY_CHANGE)


def _leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict) and values:
        for key, value in values.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(values, list) and values:
        for number, value in enumerate(values):
            yield from _leaves(value, f"{path}.{number}")
    else:
        yield path, values
