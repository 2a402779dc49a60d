"""A dry run refuses what a run would refuse, and asks transformers only where that has something to refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import get_scheduler

from posttrain.distributed import ranks
from posttrain.errors import RecipeError, SetupError
from posttrain.execution.prepare import arguments
from posttrain.execution.prepare.arguments import WITH_OPTIONS, check_arguments, training_arguments
from posttrain.recipe.recipe import Recipe, load_recipe
from posttrain.recipe.training import Scheduler
from recipes import SCRATCH, recipe


def made(model: dict[str, Any] | None = None, **training: Any) -> Recipe:
    values = {"max_steps": 4, "rows_per_step": 6, **training}
    return load_recipe(recipe(model={**SCRATCH, **(model or {})}, training=values))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Recipe]:
    """The recipes with which transformers was asked."""
    found: list[Recipe] = []

    def ask(recipe: Recipe, steps: int, **options: Any) -> Any:
        found.append(recipe)
        return training_arguments(recipe, steps, **options)

    monkeypatch.setattr(arguments, "training_arguments", ask)
    return found


@pytest.mark.parametrize("name", get_args(Scheduler))
def test_the_schedules_that_need_options_are_those_that_transformers_refuses_without(name: str) -> None:
    sgd = torch.optim.SGD([torch.zeros(1)])
    try:
        get_scheduler(name, sgd, 1, 4)
        refused = False
    except (ValueError, TypeError):
        refused = True
    assert refused == (name in WITH_OPTIONS)


@pytest.mark.parametrize(
    "values",
    [{"lr_scheduler_type": "cosine_with_min_lr"}, {"extra": {"lr_scheduler_kwargs": {"no": 1}}}],
    ids=["none", "wrong"],
)
def test_what_transformers_refuses_is_refused_before(values: dict[str, Any]) -> None:
    refused = made(**values)
    for check in (training_arguments, check_arguments):
        with pytest.raises((RecipeError, SetupError), match="the arguments do not fit"):
            check(refused, 4, checkpointing=False)


def test_rows_that_the_processes_cannot_share_are_refused_without_it(
    monkeypatch: pytest.MonkeyPatch, asked: list[Recipe]
) -> None:
    check_arguments(made(), 4, checkpointing=False)
    monkeypatch.setattr(ranks, "world", lambda: 4)
    with pytest.raises(RecipeError, match="6 rows are no whole number of micro-batches of 1 on each of 4"):
        check_arguments(made(), 4, checkpointing=False)
    assert asked == []


def test_it_is_asked_of_what_a_device_may_not_have(asked: list[Recipe]) -> None:
    in_bfloat16 = made({"compute": "bfloat16"})
    check_arguments(in_bfloat16, 4, checkpointing=False)
    assert asked == [in_bfloat16]
