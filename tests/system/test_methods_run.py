"""Methods that are settings of a recipe, of the sections on data of docs/methods.yaml: three steps of every stage of each."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from house.test_methods import Method, sections
from posttrain.execution.runner import run
from posttrain.recipe import Recipe, load_recipe
from posttrain.recipe.by_name import group_of, known_recipes
from posttrain.settings.data import Mixture, TaskSource

pytestmark = pytest.mark.system
SECTIONS = ("Stages, mixtures and replay", "Data that a model writes, and rounds", "Orders of data, and lengths of rows")
STEPS, ROWS, PER_STEP = 3, 120, 8
FIRST = 250
"""Steps of a stage from scratch before one whose data its model writes, so that some of its answers are right."""
START = "runs/demonstrations/final"
"""What recipes of data that models write start from."""
OTHERS = ("SYNTHESIZER", "TEACHER")
"""Models that a reader is to name."""
NOT_HERE = {"GrowLength": "its texts", "LIMA": "a model of 7 B"}
"""What needs something that does not lie beside the recipes."""


def methods() -> list[Method]:
    found = [one for section in sections() if section.section in SECTIONS for one in section.methods if one.here.recipe]
    return [one for one in found if one.name not in NOT_HERE]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is sometimes right."""
    folder = tmp_path_factory.mktemp("start")
    brief = ["training.max_steps=600", "data.eval={}", "training.save_every=0", f"output_dir={folder}/run"]
    run(load_recipe("demonstrations", brief))
    return folder / "run/final"


def short(recipe: Recipe, *, first: bool = False) -> Recipe:
    """The same of few rows and steps; of more where it comes `first`."""
    if first:
        training = recipe.training.model_copy(update={"max_steps": FIRST, "save_every": 0})
        return recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval": {}}), "training": training})
    whole = recipe.data.train
    train: Any = (
        whole.model_copy(update={"mix": {name: few(one) for name, one in whole.mix.items()}})
        if isinstance(whole, Mixture)
        else few(whole)
    )
    training = {"max_steps": STEPS, "epochs": None, "save_every": 0}
    if recipe.training.tokens_per_step is None and recipe.rollout is None:
        training["rows_per_step"] = PER_STEP
    changes = {
        "data": recipe.data.model_copy(update={"train": train, "eval": {}}),
        "training": recipe.training.model_copy(update=training),
        "stages": [short(stage, first=begins(recipe, number)) for number, stage in enumerate(recipe.stages)],
    }
    return recipe.model_copy(update=changes)


def begins(recipe: Recipe, number: int) -> bool:
    """Whether a stage is from scratch, and a later one writes."""
    stage, later = recipe.stages[number], recipe.stages[number + 1 :]
    return stage.model.from_scratch is not None and any(one.data.collect is not None for one in later)


def few(source: Any) -> Any:
    return source.model_copy(update={"rows": min(source.rows, ROWS)}) if isinstance(source, TaskSource) else source


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.name.replace(" ", "_"))
def test_its_recipe_trains_three_steps_of_every_stage(
    method: Method, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(START).parent.mkdir(parents=True)
    Path(START).symlink_to(start)
    given = list(method.here.set)
    for name in OTHERS:
        given = [one.replace(name, START) for one in given]
    assert method.here.recipe is not None
    if load_recipe(method.here.recipe, given).rounds is not None:
        given.append("rounds.times=2")
    whole = short(load_recipe(method.here.recipe, [*given, "output_dir=out"]))
    run(whole)
    for one in whole.stages or [whole]:
        steps = (Path(one.output_dir) / "metrics.jsonl").read_text().splitlines()
        rows = [number for name, number in json.loads(steps[0]).items() if re.fullmatch("data/train(/.+)?/rows", name)]
        assert len(steps) == one.training.max_steps and rows and min(rows) > 0
    assert Path("out/final/model.safetensors").is_file()


def test_what_is_left_out_is_a_method_of_these_sections() -> None:
    names = {one.name for section in sections() if section.section in SECTIONS for one in section.methods}
    assert NOT_HERE.keys() <= names
    assert {one.here.recipe for one in methods()} <= {
        name for name, path in known_recipes().items() if group_of(path) in ("start", "methods", "written")
    }
