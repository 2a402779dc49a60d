"""Which code of the user's a recipe runs, and whose machine plays: whether it may; and what tells one state of the code from
another.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from posttrain.algorithms import built
from posttrain.data.transforms import built_transform
from posttrain.environments.options import EnvironmentConfig
from posttrain.environments.sessions import Sessions
from posttrain.errors import RecipeError
from posttrain.recipe.recipe import Recipe
from posttrain.rewards.isolated.jail.levels import allow_unjailed, level_of
from posttrain.rewards.isolated.jail.options import Jailed
from posttrain.rewards.options import Judged
from posttrain.settings.doors.code import digest, fingerprint
from posttrain.settings.doors.door import Door
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.optimizers.function import FunctionOptimizer
from posttrain.train.schedules import built_schedule
from posttrain.train.schedules.table import Table


def check_permitted(recipe: BaseModel, permissions: Permissions) -> None:
    """Refuses code of the user's, environments on other machines, and programs of the policy without a jail, unless they are
    allowed. What installed packages bring is allowed: who installs, trusts.

    Raises:
        RecipeError: names it.
        SetupError: there is no such jail.
    """
    check_jails(recipe, permissions)
    away = [
        part.other_machine
        for part in parts_of(recipe)
        if isinstance(part, EnvironmentConfig) and part.other_machine is not None
    ]
    if away and not permissions.remote_environment:
        raise RecipeError(
            f"environment.url: {away[0]} is not on this machine: it would read all that the policy writes, and what it says "
            "and pays would be trained on. Who wants that says --allow-remote-environment (in Python: "
            "allow_remote_environment=True of run)."
        )
    paths = own_paths(recipe)
    if paths and not permissions.code:
        raise RecipeError(
            f"The recipe runs code: {', '.join(paths)}. Who trusts it says --allow-code (in Python: allow_code=True of run)."
        )


def check_jails(recipe: BaseModel, permissions: Permissions) -> None:
    """Whether this machine has the jails that a recipe asks for.

    Raises:
        SetupError: it has not; or none, and that programs run without is not allowed.
    """
    if permissions.unjailed:
        allow_unjailed()
    for part in parts_of(recipe):
        if isinstance(part, Jailed):
            level_of(part.jail)


def jails(recipe: BaseModel) -> dict[str, str]:
    """Of each part that runs programs of the policy, the level of its jail."""
    return {str(getattr(part, "name", "?")): level_of(part.jail) for part in parts_of(recipe) if isinstance(part, Jailed)}


def own_paths(recipe: BaseModel) -> list[str]:
    """The paths that it names, and others' environments; not what installed packages bring by an entry point."""
    parts = list(parts_of(recipe))
    paths = [part.path for part in parts if isinstance(part, Door) and not part.trusted]
    others = [part.foreign_code for part in parts if isinstance(part, EnvironmentConfig) and part.foreign_code is not None]
    return list(dict.fromkeys([*paths, *others]))


def try_code(recipe: Recipe) -> None:
    """Loads the recipe's code, and checks what can be told only then. torch is imported.

    Raises:
        RecipeError, SetupError: it cannot be used.
    """
    recipe.check_built(built(recipe.algorithm))
    for reward in recipe.rewards:
        if isinstance(reward, Door):
            reward.build(Judged(recipe.data.judged, recipe.rollout.max_tokens if recipe.rollout is not None else 1)).close()
    played = recipe.environment
    if isinstance(played, Door) or (played is not None and played.foreign_code is not None):
        Sessions.of(played).close()
    if recipe.training.schedule is not None:
        built_schedule(recipe.training.schedule, recipe.training.learning_rate)
    if isinstance(recipe.training.optimizer, FunctionOptimizer):
        try:
            recipe.training.optimizer.check()
        except ValueError as error:
            raise RecipeError(f"training.optimizer: {error}") from error
    for number, transform in enumerate(recipe.data.transforms):
        if isinstance(transform, Door):
            built_transform(transform, number)


def fingerprints(recipe: BaseModel) -> dict[str, str]:
    """For each path of the user's code, each table of a schedule, and each config of an installed package, its state.

    Raises:
        RecipeError: a file cannot be read.
    """
    found: dict[str, str] = {}
    for part in parts_of(recipe):
        module, name = type(part).__module__, type(part).__qualname__
        path = part.path if isinstance(part, Door) else None if module.startswith("posttrain.") else f"{module}:{name}"
        try:
            found |= {} if path is None else {path: fingerprint(path)}
            found |= {part.path: digest(Path(part.path))} if isinstance(part, Table) else {}
        except ValueError as error:
            raise RecipeError(str(error)) from error
    return found


def parts_of(value: Any) -> Iterator[BaseModel]:
    """Every config in a config, itself included."""
    if isinstance(value, BaseModel):
        yield value
        value = [getattr(value, name) for name in type(value).model_fields]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from parts_of(one)
