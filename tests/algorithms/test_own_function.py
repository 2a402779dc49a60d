"""A loss of the user's in a recipe: given what it names, tried before anything is trained, and held against the recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain import build_algorithm, load_recipe
from posttrain.algorithms import built
from posttrain.errors import RecipeError
from recipes import SCRATCH
from system import own_code

OWN = own_code.__file__
ROLLOUT = {"questions_per_step": 4, "n": 4, "max_tokens": 6}


def loaded(tmp_path: Path, function: str, **changes: Any) -> Any:
    values = {
        "model": SCRATCH,
        "algorithm": {"name": "function", "path": f"{OWN}:{function}"},
        "data": {"train": {"task": "chain", "rows": 8}},
        "training": {"max_steps": 1},
        "output_dir": "out",
        **changes,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return load_recipe(tmp_path / "recipe.yaml")


def test_it_is_given_what_follows_from_the_recipe_and_what_it_names(tmp_path: Path) -> None:
    recipe = loaded(tmp_path, "plain", rollout=ROLLOUT, training={"max_steps": 1, "rows_per_step": 8})
    algorithm = built(recipe.algorithm)
    assert (algorithm.needs.rollouts, algorithm.needs.updates) == (4, 2)
    recipe.check_built(algorithm)


@pytest.mark.parametrize(
    ("function", "changes", "says"),
    [
        ("undecided", {"rollout": ROLLOUT}, "rollout: undecided trains on the data as they are"),
        ("plain", {"rollout": ROLLOUT, "algorithm": {"rollouts": 8}}, "algorithm.rollouts: it follows from rollout"),
        ("undecided", {"data": {"demonstrations": {"task": "chain", "rows": 8}}}, "takes none beside its data"),
        ("plain", {"algorithm": {"options": {"rollouts": 3, "updates": 1}}}, "algorithm.name: plain trains on rollouts"),
        ("plain", {"rollout": ROLLOUT, "algorithm": {"options": {"rollouts": 3}}}, "options.rollouts follows from rollout"),
        ("plain", {}, "missing a required argument: 'rollouts'"),
        ("undecided", {"algorithm": {"options": {"pover": 2.0}}}, "unexpected keyword argument 'pover'"),
        ("undecided", {"algorithm": {"options": {"power": "two"}}}, "TypeError"),
        ("Even", {}, "returned Even, and a posttrain.Algorithm is expected"),
        ("absent", {}, "there is no such object"),
    ],
)
def test_what_does_not_fit_is_said_once_it_is_built(
    tmp_path: Path, function: str, changes: dict[str, Any], says: str
) -> None:
    whole = {"algorithm": {"name": "function", "path": f"{OWN}:{function}"}, "data": {"train": {"task": "chain", "rows": 8}}}
    changes = {name: {**whole.get(name, {}), **value} for name, value in changes.items()}
    with pytest.raises(RecipeError, match=says):
        recipe = loaded(tmp_path, function, **changes)
        recipe.check_built(built(recipe.algorithm))


def test_another_number_of_rollouts_than_the_recipe_makes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fixed.py").write_text(Path(OWN).read_text() + "\n\ndef fixed():\n    return plain(8, 1)\n")
    algorithm = {"name": "function", "path": "fixed.py:fixed"}
    recipe = loaded(tmp_path, "", rollout=ROLLOUT, algorithm=algorithm)
    with pytest.raises(RecipeError, match=r"fixed asks for 8 rollouts \(Needs.rollouts\), and the recipe makes 4"):
        recipe.check_built(built(recipe.algorithm))


def test_a_stage_is_named_after_it_and_python_builds_it_too(tmp_path: Path) -> None:
    stages = [{"training": {"max_steps": 1}}, {"training": {"max_steps": 2}, "algorithm": {"name": "sft"}}]
    assert [stage.name for stage in loaded(tmp_path, "undecided", stages=stages).stages] == ["undecided", "sft"]
    assert build_algorithm("function", path=f"{OWN}:undecided", options={"power": 2.0}).name == "undecided"
