"""The teachers of a recipe: made, told, and what is known of them when a run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from posttrain.errors import RecipeError
from posttrain.estimator.needs import Needs
from posttrain.model.load import context_of, outline
from posttrain.model.proofs.identity import identity
from posttrain.recipe import Recipe
from posttrain.settings.data.writers import learnt_from
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.model import ModelConfig, TeacherConfig
from posttrain.train.given.teachers import made_teacher


def made_teachers(recipe: Recipe, needs: Needs, tokenizer: Any, permissions: Permissions) -> dict[str, Any]:
    """Those that score rows, by their names; who only writes is made when it does.

    Raises:
        SetupError, EngineError: as `made_teacher`.
    """
    allowed = {"allow_remote": permissions.remote_engine}
    return {name: made_teacher(name, one, tokenizer, **allowed) for name, one in _scoring(recipe, needs).items()}


def _scoring(recipe: Recipe, needs: Needs) -> dict[str, TeacherConfig]:
    return learnt_from(recipe.model.teachers, recipe.data, learns=needs.given_teacher)


def check_asked(recipe: Recipe, needs: Needs) -> None:
    """That a model which teaches itself is asked something else than itself.

    Raises:
        RecipeError: it is asked the same.
    """
    if needs.own_teacher and needs.teacher_template == recipe.data.prompt_template:
        raise RecipeError(
            f"algorithm.teacher_template: {needs.teacher_template!r} is what the student is asked, too, and of itself it "
            "learns nothing: name what only the teacher is told, such as {demonstration}"
        )


def loaded(teachers: Mapping[str, Any]) -> list[Any]:
    """Those that are in the memory of this process."""
    return [one for one in teachers.values() if isinstance(one, torch.nn.Module)]


def teachers_told(recipe: Recipe, teachers: Mapping[str, Any]) -> dict[str, str]:
    """For the plan."""
    told: dict[str, str] = {}
    for name, one in teachers.items():
        told[f"teacher {name}"] = (
            f"{recipe.model.teachers[name].name}, {sum(p.numel() for p in one.parameters()):,} parameters, frozen"
            if isinstance(one, torch.nn.Module)
            else one.label
        )
    return told


def identities(teachers: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that goes on must share of them."""
    return {name: identity(one) if isinstance(one, torch.nn.Module) else one.identity for name, one in teachers.items()}


def context_for(recipe: Recipe, needs: Needs, model: Any) -> int | None:
    """Tokens that the teacher reads, which may be the model itself; no weights are loaded, and no server is asked."""
    for one in _scoring(recipe, needs).values():
        named = None if one.name is None else ModelConfig(name=one.name, revision=one.revision)
        return None if named is None else context_of(outline(named, seed=recipe.seed)[0])
    return context_of(model)
