"""The product of algorithms and data: each kind of data has a recipe, which trains by every algorithm that takes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from cases import NAMES
from posttrain.algorithms import ALGORITHMS, example_values
from posttrain.execution.runner import run
from posttrain.recipe import Recipe, load_recipe
from posttrain.recipe.by_name import group_of, known_recipes
from recipes import Command

pytestmark = pytest.mark.system
RECIPE_OF = {
    ("demonstrations", "none"): "demonstrations",
    ("demonstrations", "weights"): "weighted",
    ("demonstrations", "a teacher"): "teacher",
    ("rollouts", "a teacher"): "teacher_rollouts",
    ("preferences", "none"): "pairs",
    ("labels", "none"): "unpaired",
    ("principles", "none"): "principles",
    ("rollouts", "none"): "rollouts",
    ("rollouts", "what questions are worth"): "values",
    ("rollouts", "of the question"): "both",
    ("rollouts", "a set of their own"): "two_sets",
}
"""By what an algorithm trains on, and what it takes beside that: weights, a teacher, demonstrations beside its rollouts."""
STEPS = 3


def kinds() -> Iterator[tuple[str, tuple[str, str]]]:
    """Each algorithm and its kind of data."""
    for config, value in zip(ALGORITHMS, example_values(), strict=True):
        needs, beside = value.needs, "none"
        if needs.demonstrations:
            beside = "a set of their own"
        elif needs.rollouts and needs.demonstration != "none":
            beside = "of the question"
        elif needs.baseline == "value":
            beside = "what questions are worth"
        elif config.has_teacher:
            beside = "a teacher"
        elif needs.weight != "none" and config.trains_on != "labels":
            beside = "weights"
        trains_on = "rollouts" if needs.rollouts else config.trains_on  # gkd may train on demonstrations alone
        yield value.name, (str(trains_on), beside)


KIND_OF = dict(kinds())


def weights(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first stages of the recipes train: a model that is sometimes right, so that rewards differ."""
    first = load_recipe("rollouts", ["stages.0.training.max_steps=120", "data.eval={}"]).stages[0]
    return trained(first, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def teacher(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, trained a little more, so that it teaches something."""
    more = ["training.max_steps=10", "data.eval={}", "data.train.rows=400", f"model={{name: {start}}}"]
    return trained(load_recipe("demonstrations", more), tmp_path_factory.mktemp("teacher"))


def trained(recipe: Recipe, folder: Path) -> Path:
    run(recipe.model_copy(update={"output_dir": str(folder / "run")}))
    return folder / "run/final"


def test_every_kind_of_data_has_its_recipe() -> None:
    assert list(KIND_OF) == NAMES
    lacking = {name: kind for name, kind in KIND_OF.items() if kind not in RECIPE_OF}
    assert not lacking, "a recipe in recipes/start is needed for this kind of data, and its line in RECIPE_OF"
    assert {*RECIPE_OF.values()} <= known_recipes().keys() and {*RECIPE_OF} == {*KIND_OF.values()}


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_by_every_algorithm_that_takes_its_data(name: str, start: Path, teacher: Path, posttrain: Command) -> None:
    """By the command, from what the recipe's first stage leaves."""
    trains_on, beside = KIND_OF[name]
    taught = f", teachers: {{larger: {{name: {teacher}}}}}" if beside == "a teacher" else ""
    changes = [
        f"algorithm.name={name}",
        f"training.max_steps={STEPS}",
        f"model={{name: {start}{taught}}}",
        "stages=[]",
        "data.eval={}",
        "training.save_every=0",
    ]
    told = {"sdft": "{prompt}{demonstration}", "sdpo": "{prompt}{right}"}  # it knows no other characters
    changes += [f"algorithm.teacher_template='{told[name]}'"] if name in told else []
    changes += [] if beside == "weights" or trains_on in ("labels", "principles") else ["data.train.rows=400"]
    options = [word for change in changes for word in ("--set", change)]
    code, _, err = posttrain("run", RECIPE_OF[trains_on, beside], *options, "--output-dir", "out")
    assert code == 0, err
    steps = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == STEPS
    before, after = weights(start), weights(Path("out/final"))
    moved = [key for key, value in before.items() if not value.equal(after[key])]
    assert before.keys() == after.keys() and len(moved) > len(before) // 2
    assert all(bool(value.isfinite().all()) for value in after.values())


def test_self_improvement_trains_on_what_most_of_its_answers_say(tmp_path: Path) -> None:
    """Without a label: the rows of the second stage are those of its questions' answers that agree with the majority."""
    less = ["stages.0.training.max_steps=120", "stages.0.data.train.rows=2000", "data.eval={}", "data.train.rows=60"]
    recipe = load_recipe("self_improvement", [*less, f"training.max_steps={STEPS}", "training.rows_per_step=8"])
    stages = [one.model_copy(update={"output_dir": f"{tmp_path}/{number}"}) for number, one in enumerate(recipe.stages)]
    second = stages[1].model_copy(update={"model": stages[1].model.model_copy(update={"name": f"{tmp_path}/0/final"})})
    run(stages[0])
    run(second)
    written = [json.loads(line) for line in (tmp_path / "1/collected.jsonl").read_text().splitlines()]
    agree = [answer for one in written for answer in one["answers"] if answer["right"] and answer["finished"]]
    first = json.loads((tmp_path / "1/metrics.jsonl").read_text().splitlines()[0])
    assert len(written) == 60 and 0 < first["data/train/rows"] == len(agree) < 8 * 60


OF_ONE_ROUND = {"s3ft", "self_guide", "critique"}
FEW = {"self_guide": 3, "critique": 1}
"""Rows that a method begins with, where they are no hundred."""
WRITTEN = sorted(name for name, path in known_recipes().items() if group_of(path) == "written")


@pytest.mark.parametrize("name", WRITTEN)
def test_recipes_of_data_that_models_write_train_on_what_was_written(name: str, start: Path, posttrain: Command) -> None:
    """By the command, two rounds of those that have any."""
    recipe = load_recipe(name)
    taught = f", teachers: {{larger: {{name: {start}}}}}" if (recipe.stages or [recipe])[0].model.teachers else ""
    changes = [f"model={{name: {start}{taught}}}", f"training.max_steps={STEPS}", "training.save_every=0", "data.eval={}"]
    changes += [f"data.train.rows={FEW.get(name, 100)}", "training.rows_per_step=8"]
    changes += [] if name in OF_ONE_ROUND else ["rounds.times=2"]
    if name == "leti":
        changes.append('data.transforms.0={name: control_token, column: reward, high: "*", low: "-", threshold: 0.5}')
    options = [word for change in changes for word in ("--set", change)]
    code, _, err = posttrain("run", name, *options, "--output-dir", "out")
    assert code == 0, err
    folders = [Path("out")] if name in OF_ONE_ROUND else [Path("out/1-round1"), Path("out/2-round2")]
    for folder in folders:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        written = (folder / "collected.jsonl").read_text().splitlines()
        assert len(lines) == STEPS and lines[0]["data/train/rows"] > 0 and written
        made = folder / "made.jsonl"
        assert made.is_file() != (name == "raft")  # which trains on the very tokens that were sampled
    before, after = weights(start), weights(Path("out/final"))
    assert any(not value.equal(after[key]) for key, value in before.items())
