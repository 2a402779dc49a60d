"""An order of rows and steps of tokens in a recipe: what is refused with a sentence, and what resolves to itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.data.order import GrowingOrder
from recipes import recipe

A, TASK = {"path": "a.jsonl"}, {"task": "chain", "rows": 8}
STEPS, EPOCHS = {"max_steps": 2}, {"epochs": 1}
GRPO: dict[str, Any] = {"algorithm": {"name": "grpo"}, "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4}}
DAPO: dict[str, Any] = {**GRPO, "algorithm": {"name": "dapo"}, "training": {"max_steps": 2}}
CYCLICAL, ASCENDING = {"by": "loss", "rule": "cyclical"}, {"by": "level", "rule": "ascending"}
MIX = {"mix": {"a": A, "b": TASK}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def ordered(order: Any, **more: Any) -> dict[str, Any]:
    return {"data": {"train": A, "order": order, **more}}


def tokens(**more: Any) -> dict[str, Any]:
    return {"training": {"max_steps": 2, "tokens_per_step": 512, **more}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (ordered({"rule": "ascending"}), "data.order.by: is required"),
        (ordered({"by": "level"}), "data.order.rule: is required"),
        (ordered({"by": "level", "rule": "acsending"}), "data.order.rule: acsending is unknown; did you mean ascending?"),
        (ordered({**ASCENDING, "least": 0.5}), "data.order.least: unknown key"),
        (ordered({**CYCLICAL, "within": "level"}), "data.order.within: unknown key"),
        (ordered({**CYCLICAL, "least": 0}), "data.order.least: input should be greater than 0"),
        (ordered({**CYCLICAL, "factor": 1}), "data.order.factor: input should be greater than 1"),
        (ordered({"by": "length", "rule": "blocked"}), "data.order: by: length is a number, and blocked takes a column of"),
        (ordered({"by": "a", "rule": "interleaved", "within": "a"}), "data.order: within: a is the same in all rows of a"),
        (
            ordered(ASCENDING, train=MIX),
            "data: order: it is of the rows of one source, and train is a mixture, or has replay",
        ),
        (
            ordered(ASCENDING, collect=[{"generate": {"writer": "self", "n": 2, "max_tokens": 4, "verdict": "none"}}]),
            "data: order: rows that collect makes have no column level: take by: length, or make them in a run before",
        ),
        (
            {**ordered(CYCLICAL), "training": EPOCHS},
            "training.epochs: passes by data.order: cyclical are over parts of the rows: set training.max_steps",
        ),
        (tokens(rows_per_step=4), "training: tokens_per_step: give it or rows_per_step, not both"),
        (tokens(tokens_per_step=0), "training.tokens_per_step: input should be greater than or equal to 1"),
        (tokens(tokens_per_step=10**12), "training.tokens_per_step: input should be less than or equal to"),
        (
            {**DAPO, **ordered(ASCENDING, train=TASK)},
            "data.order: dapo replaces groups that nothing is learnt from by questions in random order: set rollout.",
        ),
        (
            {**GRPO, **tokens()},
            "training.tokens_per_step: a step over rollouts is of whole groups, whose tokens nobody knows",
        ),
        (
            {"data": {"train": {**MIX, "exhausted": "stop"}}, **tokens()},
            "training.tokens_per_step: data.train.exhausted: stop asks how many rows the run reads",
        ),
        (
            {"data": {"train": {**MIX, "phases": [{"until": 0.5}, {"weights": {"b": 1}}]}}, **tokens()},
            "training.tokens_per_step: data.train.phases asks how many rows the run reads",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(**changes))
    assert f": {says}" in str(error.value)


def test_replay_and_an_order_are_refused_together() -> None:
    stages = [{"name": "a"}, {"name": "b", "data": {"train": A, "replay": {"share": 0.1}, "order": ASCENDING}}]
    with pytest.raises(RecipeError, match="order: it is of the rows of one source"):
        load_recipe(recipe(data={"train": A}, stages=stages))


@pytest.mark.parametrize(
    "changes",
    [
        ordered(ASCENDING),
        ordered(CYCLICAL),
        ordered({"by": "topic", "rule": "interleaved", "within": "level"}),
        ordered({"by": "length", "rule": "descending"}, collect={"rif": {"max_tokens": 4}}, train=TASK),
        {**ordered(ASCENDING), **tokens(epochs=1, max_steps=None)},
        {"data": {"train": MIX}, **tokens()},
        {**ordered({**CYCLICAL, "least": 1}), "training": EPOCHS},
        {**GRPO, **ordered(ASCENDING, train=TASK), "training": {"max_steps": 2}},
        {**DAPO, **ordered(ASCENDING, train=TASK), "rollout": {**GRPO["rollout"], "resamples": 0}},
        {**DAPO, **ordered(ASCENDING, train=TASK), "algorithm": {"name": "dapo", "dynamic_sampling": False}},
    ],
)
def test_what_does_resolves_to_itself(changes: dict[str, Any]) -> None:
    made = load_recipe(recipe(**changes))
    assert type(made).model_validate(made.model_dump(mode="json")) == made
    assert (made.training.rows_per_step is None) == (made.training.tokens_per_step is not None)


def test_a_step_is_of_64_rows_where_nothing_is_said() -> None:
    assert load_recipe(recipe(training=STEPS)).training.rows_per_step == 64


def growing(order: dict[str, Any] | None = None, *, data: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    given = {"train": A, "window": {"length": 64}, "order": {"by": "length", "rule": "growing", "least": 8, **(order or {})}}
    return {"data": {**given, **(data or {})}, "training": {"epochs": 1, "tokens_per_step": 512, **training}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (growing({"by": "level"}), "data.order: by: rows that grow do so by length, and not by level"),
        (growing({"least": 64}), "data: order: growing ends at window.length: set one above least: 64"),
        (growing(data={"window": {}}), "data: order: growing ends at window.length: set one above least: 8"),
        (growing(data={"window": {"length": 64, "stride": 32}}), "data: order: growing cuts texts into rows with one token"),
        (growing(epochs=None, max_steps=9), "data.order: growing gives each length an equal share of the tokens"),
        (
            growing(tokens_per_step=None, rows_per_step=8),
            "data.order: growing gives each length an equal share of the tokens",
        ),
    ],
)
def test_rows_that_grow_need_what_they_grow_to_and_over(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError) as error:
        load_recipe(recipe(**changes))
    assert f": {says}" in str(error.value)


def test_rows_grow_by_a_factor_up_to_the_window() -> None:
    order = load_recipe(recipe(**growing())).data.order
    assert isinstance(order, GrowingOrder)
    assert order.lengths(64) == [8, 16, 32, 64] and order.lengths(65) == [8, 16, 32, 64, 65] and order.lengths(9) == [8, 9]
