"""Recipes of several stages: what a stage takes over, where it starts from, resuming, and what a fault leaves."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from posttrain.algorithms.on_demonstrations.sft import SFT
from posttrain.errors import RecipeError
from posttrain.recipe.recipe import load_recipe
from recipes import Command, only_warnings, recipe

GRPO = {
    "algorithm": {"name": "grpo", "kl_coef": 0.0},
    "rollout": {"questions_per_step": 2, "n": 4, "max_tokens": 4},
    "training": {"learning_rate": 0.01, "max_steps": 2},
}
EVALUATED = {
    "data": {"train": {"task": "chain", "rows": 8}, "eval": {"test": {"task": "chain", "split": "held_out", "rows": 2}}},
    "eval": {"samples": 1, "max_tokens": 4},
}
STAGES = [{"algorithm": {"name": "sft"}, "training": {"rows_per_step": 4, "max_steps": 3}}, GRPO]


def staged(**changes: Any) -> str:
    """A recipe of two stages, SFT and GRPO, with top-level changes."""
    return recipe(**{"training": {"save_every": 1}, "stages": STAGES, **changes})


def weights(folder: str | Path) -> dict[str, Any]:
    return load_file(Path(folder) / "model.safetensors")


def same(a: str | Path, b: str | Path) -> bool:
    one, other = weights(a), weights(b)
    return all(bool((one[name] == other[name]).all()) for name in one | other)


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_stage_is_the_top_level_with_its_own_values_over_it() -> None:
    path = recipe(
        algorithm={"name": "sft"},
        training={"max_steps": 9, "rows_per_step": 4, "weight_decay": 0.5},
        eval={"samples": 2},
        stages=[{}, {"name": "second", **GRPO, "seed": 3, "model": {"dtype": "bfloat16"}}],
    )
    first, second = load_recipe(path).stages
    assert (first.name, first.output_dir, first.model.from_scratch is not None) == ("sft", "out/1-sft", True)
    assert (first.training.max_steps, first.training.weight_decay, first.rollout) == (9, 0.5, None)
    assert (second.name, second.output_dir, second.seed) == ("second", "out/2-second", 3)
    assert (second.model.name, second.model.dtype, second.model.from_scratch) == ("out/1-sft/final", "bfloat16", None)
    assert (second.training.max_steps, second.training.weight_decay, second.eval.samples) == (2, 0.5, 2)
    assert second.algorithm.name == "grpo"
    whole = load_recipe(path)
    assert whole.algorithm == second.algorithm and whole.output_dir == "out" and whole.model == first.model


def test_an_algorithm_with_a_name_takes_the_place_and_one_without_adds_to_it() -> None:
    path = recipe(
        algorithm={"name": "iw_sft", "exponent": 2.0},
        stages=[{"algorithm": {"max_weight": 3.0}}, {"algorithm": {"name": "sft"}}],
    )
    first, second = load_recipe(path).stages
    assert first.algorithm.model_dump() == {"name": "iw_sft", "exponent": 2.0, "max_weight": 3.0}
    assert second.algorithm == SFT()


def test_all_stages_run_in_the_processes_of_the_top_level() -> None:
    path = recipe(distributed={"mode": "zero2", "processes": 2}, stages=[{}, {"distributed": {"timeout": 9.0}}])
    whole = load_recipe(path, ["distributed.processes=4"])
    assert {(s.distributed.mode, s.distributed.processes) for s in (whole, *whole.stages)} == {("zero2", 4)}
    assert [stage.distributed.timeout for stage in whole.stages] == [1800.0, 9.0]
    Path("resolved.yaml").write_text(yaml.safe_dump(whole.model_dump(mode="json")))
    assert load_recipe("resolved.yaml").stages[1].distributed == whole.stages[1].distributed


def test_a_later_stage_starts_from_the_model_before_it_and_the_last_is_the_runs(posttrain: Command) -> None:
    still = {**GRPO, "training": {"max_steps": 1, "learning_rate": 0.0}}
    code, out, err = posttrain("run", recipe(stages=[STAGES[0], still], **EVALUATED))
    assert code == 0 and only_warnings(err), err
    assert same("out/1-sft/final", "out/2-grpo/final") and same("out/2-grpo/final", "out/final")
    assert "after sft" in out and "after grpo" in out


def test_the_same_again_does_nothing_and_another_recipe_is_refused(posttrain: Command) -> None:
    assert posttrain("run", staged())[0] == 0
    before = times(Path("out"))
    code, out, err = posttrain("run", staged())
    assert (code, err) == (0, "") and "is finished; nothing was done" in out and times(Path("out")) == before
    code, _, err = posttrain("run", staged(seed=4))
    assert code == 8 and "another recipe" in err and times(Path("out")) == before


@pytest.mark.parametrize(
    "lost",
    [
        ["final"],
        pytest.param(["final", "2-grpo/final"], marks=pytest.mark.system),
        pytest.param(["final", "2-grpo"], marks=pytest.mark.system),
        ["final", "2-grpo", "1-sft/final"],
    ],
)
def test_what_was_interrupted_is_resumed_where_it_was(posttrain: Command, lost: list[str]) -> None:
    path = staged()
    assert posttrain("run", path)[0] == 0
    shutil.copytree("out/final", "whole")
    first = times(Path("out/1-sft"))
    for name in lost:
        shutil.rmtree(f"out/{name}")
    code, _, err = posttrain("run", path)
    assert code == 0 and only_warnings(err) and same("out/final", "whole")
    if "1-sft/final" not in lost:
        assert times(Path("out/1-sft")) == first


def test_a_fault_of_a_later_stage_is_found_before_the_first_begins(posttrain: Command) -> None:
    later = {**GRPO, "data": {"train": {"path": "absent.jsonl"}}, "rewards": [{"name": "exact_match"}]}
    code, _, err = posttrain("run", recipe(stages=[STAGES[0], later]))
    assert code == 3 and "absent.jsonl: no such file" in err
    assert not Path("out").exists()


def test_a_fault_of_the_engine_is_found_before_the_first_begins(posttrain: Command) -> None:
    server = {"mode": "server", "url": "http://192.0.2.1:1", "weights_folder": "w"}
    later = {**GRPO, "rollout": {**GRPO["rollout"], "engine": "vllm", "vllm": server}}
    code, _, err = posttrain("run", recipe(stages=[STAGES[0], later]))
    assert code == 4 and "--allow-remote-engine" in err
    assert not Path("out").exists()


def test_a_dry_run_tells_of_every_stage_and_writes_nothing(posttrain: Command) -> None:
    code, out, err = posttrain("run", staged(), "--dry-run")
    assert (code, err) == (0, "") and "sft: steps" in out and "grpo: rollouts per step" in out
    assert not Path("out").exists()


def test_validate_names_the_stages(posttrain: Command) -> None:
    code, out, _ = posttrain("validate", staged())
    assert code == 0 and "is valid: sft, then grpo on qwen2 from scratch." in out


@pytest.mark.parametrize("assignment", ["training.max_steps=3", "algorithm.nmae=sft", "algorithm.beta=1"])
def test_an_override_that_no_stage_would_use_is_refused(assignment: str) -> None:
    key = assignment.partition("=")[0]
    with pytest.raises(RecipeError, match=f"^--set {assignment}: every stage has a {key} of its own: set stages.0.{key}"):
        load_recipe(staged(), [assignment])


def test_an_override_reaches_a_stage() -> None:
    assert {stage.seed for stage in load_recipe(staged(), ["seed=7"]).stages} == {7}
    path = staged()
    assert load_recipe(path, ["stages.1.training.max_steps=7"]).stages[1].training.max_steps == 7
    assert yaml.safe_load(Path(path).read_text())["stages"][1]["training"]["max_steps"] == 2
