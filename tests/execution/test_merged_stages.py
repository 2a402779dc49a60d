"""Stages that merge models: what they take, what they make, and what they are refused for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from recipes import Command, in_cells, recipe

EVALUATED = {"train": {"task": "chain", "rows": 8}, "eval": {"test": {"task": "chain", "split": "held_out", "rows": 2}}}


def staged(*merges: dict[str, Any], **changes: Any) -> str:
    """Two stages from one model, in a folder, and what merges them."""
    stages = [{"name": "a"}, {"name": "b", "from": "base", "seed": 1}, *merges]
    return recipe(**{"model": {"name": "models/base"}, "data": EVALUATED, "stages": stages, **changes})


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_names_of_stages_are_their_final_models() -> None:
    path = staged(
        {"merge": {"method": "ties", "models": ["a", "previous"], "weights": [1, 2]}},
        {"name": "more"},
        {"name": "line", "merge": {"method": "wise_ft", "base": "merge", "models": ["runs/other/final"], "alpha": 0.25}},
    )
    *_, ties, more, line = load_recipe(path).stages
    assert ties.merge is not None and ties.merge.places == ["models/base", "out/1-a/final", "out/2-b/final"]
    assert (ties.name, ties.model.name, ties.merge.method) == ("merge", "models/base", "ties")
    assert more.merge is None and more.model.name == "out/3-merge/final"
    assert line.merge is not None and line.merge.places == ["out/3-merge/final", "runs/other/final"]
    whole = load_recipe(path)
    Path("again.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json")))
    assert load_recipe("again.yaml") == whole


def test_a_stage_that_merges_needs_no_training_of_its_own() -> None:
    """Where the top level has none either it is evaluated as the stage before it is; and each round merges its own."""
    own = {"algorithm": {"name": "sft"}, "training": {"max_steps": 2, "rows_per_step": 4}, "data": EVALUATED}
    merge = {"merge": {"method": "linear", "models": ["base", "previous"]}}
    values = yaml.safe_load(Path(recipe(model={"name": "models/base"}, stages=[own, merge])).read_text())
    for name in own:
        del values[name]
    Path("recipe.yaml").write_text(yaml.safe_dump({**values, "rounds": {"times": 2}}))
    stages = load_recipe("recipe.yaml").stages
    assert [one.merge.places for one in stages if one.merge is not None] == [
        ["models/base", "out/1-round1-sft/final"],
        ["models/base", "out/3-round2-sft/final"],
    ]
    assert stages[2].model.name == "out/2-round1-merge/final"


@pytest.mark.parametrize(
    ("merge", "sentence"),
    [
        ({"method": "linear", "models": ["a", "c"]}, r"merge.models.1: c is neither base, previous, a stage before \(a, b\)"),
        ({"method": "linear", "models": ["a"]}, "models: linear takes 2 or more, and here is 1"),
        ({"method": "ties", "models": ["a", "b"], "density": 0}, "density: input should be greater than 0"),
        ({"method": "tise", "models": ["a", "b"]}, "tise is unknown; did you mean ties?"),
        ({"models": ["a", "b"]}, "method: is required"),
        ({"method": "slerp", "models": ["a", "b"], "density": 0.5}, "density: unknown key"),
    ],
)
def test_what_cannot_be_merged_is_refused_before_anything_runs(merge: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(staged({"merge": merge}))


def test_where_a_merge_starts_is_said_by_its_models() -> None:
    with pytest.raises(RecipeError, match=r"stages\.2\.from: a stage that merges starts from none"):
        load_recipe(staged({"from": "a", "merge": {"method": "linear", "models": ["a", "b"]}}))
    with pytest.raises(RecipeError, match=r"merge\.base: base is made from scratch here"):
        scratch = {"from_scratch": {"hidden_size": 32}, "tokenizer": "characters"}
        load_recipe(recipe(model=scratch, stages=[{"name": "a"}, {"merge": {"method": "wise_ft", "models": ["a"]}}]))


def test_what_is_merged_is_evaluated_and_trained_further(posttrain: Command) -> None:
    assert posttrain("run", recipe(output_dir="first"))[0] == 0
    shutil.copytree("first/final", "models/base")
    path = staged({"merge": {"method": "linear", "models": ["a", "b"], "weights": [0.25, 0.75]}}, {"name": "more"})
    code, out, err = posttrain("run", path, "--dry-run")
    assert code == 0 and "linear of out/1-a/final and out/2-b/final" in in_cells(out) and not Path("out").exists(), err
    code, out, err = posttrain("run", path)
    assert code == 0 and "after merge" in out, err
    a, b, merged = (load_file(f"out/{name}/final/model.safetensors") for name in ("1-a", "2-b", "3-merge"))
    for name, tensor in merged.items():
        assert torch.equal(tensor, (0.25 * a[name].double() + 0.75 * b[name].double()).float())
    assert not any(torch.equal(a[name], merged[name]) for name in ("model.layers.0.mlp.up_proj.weight", "lm_head.weight"))
    [after], first = (_evaluations(f"out/{name}") for name in ("3-merge", "4-more"))
    assert after["step"] == 0 and after["eval/test/nll"] == pytest.approx(first[0]["eval/test/nll"], abs=1e-5)
    assert not Path("out/3-merge/merged").exists()
    code, out, err = posttrain("run", path)
    assert code == 0 and "is finished; nothing was done" in out, err
    shutil.rmtree("out/3-merge/final")  # as a run that was ended while it evaluated
    shutil.rmtree("out/final")
    assert posttrain("run", path)[0] == 0 and Path("out/3-merge/final").is_dir()
    code, out, err = posttrain("show", "out")
    assert code == 0 and "sft → sft → merge-linear → sft" in out, err


def _evaluations(folder: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(folder) / "eval.jsonl").read_text().splitlines()]
