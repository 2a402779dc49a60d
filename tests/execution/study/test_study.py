"""Studies: what a YAML may say, which runs it makes and with what recipes, how rates are chosen, and what the tables hold."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from execution.study.made import STUDY, finished, study
from posttrain import Sampling
from posttrain.data.rows import Problem
from posttrain.errors import RecipeError
from posttrain.execution.study.config import load_study
from posttrain.execution.study.drift import drift
from posttrain.execution.study.execute import report
from posttrain.execution.study.interval import Interval
from posttrain.execution.study.matrix import Matrix, Run
from posttrain.execution.study.outcome import Outcome
from posttrain.execution.study.results import read_results, save_results
from posttrain.execution.study.table import tables
from posttrain.settings.doors.permissions import Permissions
from recipes import Command
from tiny import make_model

ROOT = Path(__file__).parents[3]


def written(tmp_path: Path, **changes: Any) -> str:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**deepcopy(STUDY), **changes}))
    return str(tmp_path / "study.yaml")


def test_the_projects_studies_are_valid() -> None:
    for path in (ROOT / "studies").glob("*.yaml"):
        assert "runs to choose" in Matrix(load_study(path)).check(Permissions(code=True))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seeds": [0, 7]}, r"tuning.seeds: they must be others than seeds"),
        ({"seeds": [0]}, r"study.yaml:\d+: seeds: "),
        ({"baseline": "grpo"}, r"baseline: grpo is none of algorithms \(both, sft\)"),
        ({"drift": "nowhere"}, r"drift: nowhere is of no set in recipe.data.eval \(test, val\)"),
        ({"earlier": "nowhere"}, r"earlier: nowhere is of no set"),
        ({"tuning": {**STUDY["tuning"], "metrics": ["x/pass@1"]}}, r"tuning.metrics: x/pass@1 is of no set"),
        ({"recipe": {**STUDY["recipe"], "seed": 3}}, r"recipe: seed: every run has its own"),
        ({"budget": {}}, r"give either tokens or seconds"),
        ({"algoritms": {}}, r"algoritms: .*did you mean algorithms"),
    ],
)
def test_wrong_studies(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=says):
        load_study(written(tmp_path, **changes))


def test_a_wrong_recipe_is_named_before_anything_runs(posttrain: Command, tmp_path: Path) -> None:
    wrong = {**STUDY["algorithms"], "bad": {"algorithm": {"name": "grop"}}}
    code, _, err = posttrain("compare", written(tmp_path, algorithms=wrong))
    assert code == 2 and "algorithms.bad: algorithm.name: grop is unknown; did you mean grpo" in err
    assert not Path("study").exists()


def test_a_dry_run_counts(posttrain: Command, tmp_path: Path) -> None:
    code, out, err = posttrain("compare", written(tmp_path), "--dry-run")
    assert code == 0 and "3 start models, 8 runs to choose learning rates by, 8 to report." in out, err
    assert not Path("study").exists()


@pytest.mark.parametrize("arguments", [["absent"], ["one.yaml", "two.yaml"], ["absent.yaml"], []])
def test_bad_usage(posttrain: Command, arguments: list[str]) -> None:
    code, _, err = posttrain("compare", *arguments)
    assert code == 2 and err and "Traceback" not in err


def test_every_run_differs_in_what_it_says_and_in_nothing_else() -> None:
    matrix = Matrix(study())
    recipes = [matrix.recipe(run) for run in matrix.tuning()]
    assert len({str(recipe.eval) for recipe in recipes}) == 1
    assert len({str(recipe.data) for recipe in recipes}) == 1
    assert len({recipe.output_dir for recipe in recipes}) == len(recipes)
    for run, recipe in zip(matrix.tuning(), recipes, strict=True):
        assert recipe.seed == run.seed and recipe.model.from_scratch is None
        parts = recipe.stages or [recipe]
        assert parts[0].model.name == ("some/model" if run.start == "given" else "study/starts/young/seed-7/final")
        rates = [run.learning_rate, 0.5 * run.learning_rate][: len(parts)]
        assert [part.training.learning_rate for part in parts] == rates
        budgets = [part.training.budget.tokens for part in parts if part.training.budget is not None]
        assert budgets == ([100, 300] if run.algorithm == "both" else [400])
    assert [(start, seed) for start, seed in matrix.begun()] == [("young", 7), ("young", 0), ("young", 1)]
    assert matrix.start_recipe("young", 1).seed == 1


def test_an_outcome_adds_up_the_stages(tmp_path: Path) -> None:
    finished(tmp_path / "1-sft", 0.5, before=0.2)
    finished(tmp_path / "2-hpt", 0.7, before=0.5)
    (tmp_path / "drift.json").write_text('{"entropy": 1.5}')
    outcome = Outcome.of(tmp_path)
    assert outcome.before["eval/test/pass@1"] == 0.2 and outcome.after["eval/test/pass@1"] == 0.7
    spent = (outcome.steps, outcome.tokens, outcome.tokens_trained, outcome.tokens_generated, outcome.seconds)
    assert spent == (4, 40, 20, 14, 2.0) and outcome.demonstrated == 0.5 and outcome.drift == {"entropy": 1.5}


def test_a_report_has_a_table_for_each_start_figures_and_plots(tmp_path: Path) -> None:
    made = study(output_dir=str(tmp_path), earlier="test")
    runs: list[Run] = [run for pair in Matrix(made).pairs() for run in Matrix(made).final(*pair, 1e-3)]
    for run in runs:
        finished(run.folder, 0.5 + 0.1 * run.seed)
    folder = report(made, {run: Outcome.of(run.folder) for run in runs})
    table = (folder / "table.md").read_text()
    assert table.count("### Start: ") == 2 and "400 tokens" in table and "which are not reported" in table
    [row, _] = [line for line in table.splitlines() if line.startswith("| sft |")]
    half = 12.7062 * np.std([0.5, 0.6], ddof=1) / np.sqrt(2)
    assert f"0.550 ± {half:.3f}" in row and "val" not in table.split("### Start")[1]
    assert "test, after - before" in table and f"0.450 ± {half:.3f}" in row
    results = json.loads((folder / "results.json").read_text())
    assert len(results) == len(runs) and {"seed", "after", "tokens", "learning_rate"} <= results[0].keys()
    assert {path.name for path in (folder / "plots").iterdir()} == {"young.svg", "given.svg"}


def test_algorithms_are_held_against_one_seed_by_seed_and_what_else_is_asked_for_is_shown(tmp_path: Path) -> None:
    shown = ["test/length", "train/demonstrated", "mask/dropped_fraction"]
    made = study(output_dir=str(tmp_path), starts={"given": STUDY["starts"]["given"]}, baseline="sft", shown=shown)
    runs = [
        run for pair, rate in zip(Matrix(made).pairs(), (1e-2, 1e-3), strict=True) for run in Matrix(made).final(*pair, rate)
    ]
    for run in runs:
        finished(run.folder, 0.5 + 0.1 * run.seed + (0.2 + 0.02 * run.seed if run.algorithm == "both" else 0.0))
    said: list[str] = []
    folder = report(made, {run: Outcome.of(run.folder) for run in runs}, said.append)
    assert said == ["shown: mask/dropped_fraction is measured in no run."]
    table = (folder / "table.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if line.startswith("|")]
    [titles, _, _, sft, both] = rows
    half = 12.7062 * np.std([0.2, 0.22], ddof=1) / np.sqrt(2)
    paired = titles.index("test pass@1 - sft")
    assert both[paired] == f"0.210 ± {half:.3f}" and sft[paired] == "" and both[2] == "0.001 ↓" and sft[2] == "0.01 ↑"
    assert sft[titles.index("train/demonstrated, over steps")].startswith("0.500") and "test length - sft" in titles
    assert "mask/dropped_fraction" not in titles


def test_tables_can_be_made_again_from_what_was_kept_of_the_results(tmp_path: Path) -> None:
    made = study(output_dir=str(tmp_path), baseline="both")
    runs = [run for pair in Matrix(made).pairs() for run in Matrix(made).final(*pair, 1e-3)]
    for run in runs:
        finished(run.folder, 0.5 + 0.1 * run.seed)
    table = (report(made, {run: Outcome.of(run.folder) for run in runs}) / "table.md").read_text()
    everything = read_results(tmp_path / "results.json")
    save_results(tmp_path / "kept.json", everything, only=["eval/test/pass@1", "eval/test/pass@2", "eval/test/length"])
    kept = read_results(tmp_path / "kept.json")
    assert tables(made, everything) == tables(made, kept) == table and list(kept) == runs
    assert len((tmp_path / "kept.json").read_text()) < len((tmp_path / "results.json").read_text())
    assert (tmp_path / "kept.json").read_text().count("\n") == len(runs) + 2
    for wrong in ("[{}]", "{", "[1]"):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(RecipeError, match=r"wrong.json is no file of a study's results"):
            read_results(tmp_path / "wrong.json")


def test_runs_can_be_shown_beside_each_other(posttrain: Command, tmp_path: Path) -> None:
    for name, after in (("one", 0.25), ("two", 0.75)):
        finished(tmp_path / name, after)
        (tmp_path / name / "recipe.yaml").write_text("{}")
    code, out, err = posttrain("compare", "one", "two")
    assert code == 0 and "0.25" in out and "0.75" in out and "tokens generated" in out, err


def test_an_interval_is_students() -> None:
    interval = Interval.of([1.0, 2.0, 3.0])
    assert interval.mean == 2 and interval.half == pytest.approx(4.30265 / np.sqrt(3), rel=1e-5)
    assert np.isnan(Interval.of([1.0]).half)


def test_drift_is_nothing_from_itself_and_the_mean_gap_on_own_answers_from_another() -> None:
    model, tokenizer = make_model(dtype="float32")
    other, _ = make_model(dtype="float32")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    problems = [Problem(tokenizer(f"{i}+1=").input_ids, {"prompt": f"{i}+1="}, str(i)) for i in range(70)]
    sampling = Sampling(max_tokens=4)
    same, far = drift(model, model, tokenizer, problems, sampling), drift(model, other, tokenizer, problems, sampling)
    assert same["kl_per_token"] == same["kl_per_answer"] == 0 and same["entropy"] == far["entropy"] > 0
    assert far["kl_per_answer"] > far["kl_per_token"] > 0
