"""Running a study: its jobs, runs that are not finite, what is measured, and how learning rates are chosen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from execution.study.made import STUDY, finished, study
from posttrain.data.rows import Problem
from posttrain.errors import Interrupted, NonFiniteError, RecipeError
from posttrain.execution.evaluation import evaluate
from posttrain.execution.study import execute as module
from posttrain.execution.study.execute import Job, choose, execute
from posttrain.execution.study.known import NOT_FINITE, outcome_of
from posttrain.execution.study.matrix import Matrix, sampled_metrics
from posttrain.recipe.recipe import Recipe
from posttrain.rewards.grading import TaskGrader
from posttrain.rollout.engine import Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.evaluation import EvalConfig
from tiny import make_model

TOO_FAST = 1e30
STAGES = [{"algorithm": {"name": "sft"}}, {"algorithm": {"name": "dft"}}]
SMALL: dict[str, Any] = {
    "starts": {"young": {"stages": STAGES, "training": {"max_steps": 1}}},
    "algorithms": {"sft": {"algorithm": {"name": "sft"}}, "both": {"stages": STAGES}},
    "tuning": {**STUDY["tuning"], "learning_rates": [TOO_FAST, 1e-3]},
    "budget": {"tokens": 2000},
}


def by(*metrics: str) -> dict[str, Any]:
    return {"tuning": {**STUDY["tuning"], "metrics": metrics}}


class InThisProcess:
    """A pool whose jobs are done at once."""

    def __init__(self, *_: Any) -> None:
        pass

    def shutdown(self, **_: Any) -> None:
        pass

    def submit(self, job: Callable[..., None], *arguments: Any, **options: Any) -> Future[None]:
        future = Future[None]()
        try:
            future.set_result(job(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "ProcessPoolExecutor", InThisProcess)


@pytest.mark.system
def test_a_start_model_may_have_stages_and_a_rate_that_is_too_fast_is_marked_and_not_chosen() -> None:
    said: list[str] = []
    made = study(**SMALL)
    folder = execute(made, say=said.append)
    assert said[0].startswith("3 start models, 4 runs to choose learning rates by, 4 to report")
    assert (folder / "starts/young/seed-0/2-dft/final").is_dir() and (folder / "starts/young/seed-0/final").is_dir()
    marked = {run.learning_rate: (run.folder / NOT_FINITE).is_file() for run in Matrix(made).tuning()}
    assert marked == {TOO_FAST: True, 1e-3: False}
    results = json.loads((folder / "results.json").read_text())
    assert {row["learning_rate"] for row in results} == {1e-3} and all(row["drift"] for row in results)
    lines = (folder / "runs/young/both/seed-0/1-sft/metrics.jsonl").read_text()
    execute(made, say=said.append)
    assert (folder / "runs/young/both/seed-0/1-sft/metrics.jsonl").read_text() == lines


def test_a_start_model_that_is_not_finite_is_an_error() -> None:
    stages = [{**stage, "training": {"learning_rate": TOO_FAST, "max_steps": 6}} for stage in STAGES]
    for name, start in {"staged": {"stages": stages}, "plain": stages[0]}.items():
        with pytest.raises(NonFiniteError, match=r"Step \d: "):
            execute(study(**{**SMALL, "starts": {name: start}}), say=lambda _: None)
    assert not list(Path("study").rglob(NOT_FINITE))


def test_a_run_that_is_reported_must_be_finite_and_what_is_allowed_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def run(recipe: Recipe, **allowed: bool) -> None:
        asked.append(allowed)
        finished(Path(recipe.output_dir), 0.5)
        if recipe.seed == STUDY["seeds"][0] and "runs" in recipe.output_dir:
            raise NonFiniteError("Step 7")

    monkeypatch.setattr("posttrain.execution.runner.run", run)
    allowed = Permissions(remote_engine=True, code=True, remote_environment=True)
    with pytest.raises(NonFiniteError, match="Step 7"):
        execute(study(drift=None), say=lambda _: None, permissions=allowed)
    assert len(asked) == 3 + 8 + 8 and all(one == allowed.as_options for one in asked)


def test_the_callers_environment_stays_and_a_worker_takes_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setattr("posttrain.execution.runner.run", lambda recipe, **_: finished(Path(recipe.output_dir), 0.5))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    execute(study(drift=None), say=lambda _: None)
    assert "OMP_NUM_THREADS" not in os.environ and not given
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    module._share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == "3" and not given
    monkeypatch.delenv("OMP_NUM_THREADS")
    module._share_cores(2)
    assert os.environ["OMP_NUM_THREADS"] == "2" and given == [2]


def test_a_study_goes_on_from_what_is_known_of_its_runs_where_their_folders_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(recipe: Recipe, **_: Any) -> None:
        ran.append(recipe.output_dir)
        finished(Path(recipe.output_dir), 0.5 + recipe.training.learning_rate)
        if "lr-0.01" in recipe.output_dir:
            raise NonFiniteError("Step 7")

    monkeypatch.setattr("posttrain.execution.runner.run", run)
    folder = execute(study(drift=None), say=lambda _: None)
    table, known = (folder / "table.md").read_text(), (folder / "outcomes.jsonl").read_text()
    assert len(ran) == 3 + 8 + 8 and known.count("\n") == 8 + 8

    def elsewhere(name: str, *lines: str, **changes: Any) -> tuple[str, list[str]]:
        ran.clear()
        Path(name).mkdir()
        (Path(name) / "outcomes.jsonl").write_text("".join(lines))
        said: list[str] = []
        made = execute(study(drift=None, output_dir=name, **changes), say=said.append)
        return (made / "table.md").read_text(), said

    again, said = elsewhere("all", known)
    assert again == table and not ran
    assert said[1:] == ["plots: 8 of 8 runs are known by outcomes.jsonl alone, and have no curve."]
    again, said = elsewhere("most", *(line for line in known.splitlines(keepends=True) if "runs/given/both" not in line))
    assert again == table and ran == [f"most/runs/given/both/seed-{seed}" for seed in (0, 1)]
    begun = {"starts": {**STUDY["starts"], "young": {"algorithm": {"name": "dft"}}}}
    elsewhere("other_start", known, **begun)
    assert len(ran) == 3 + 4 + 4 and not any("given" in one for one in ran)


def test_a_mark_of_not_being_finite_holds_for_runs_that_rates_are_chosen_by_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr("posttrain.execution.runner.run", lambda recipe, **_: ran.append(recipe.output_dir))
    made = Matrix(study())
    recipe = made.recipe(next(made.tuning()))
    Path(recipe.output_dir).mkdir(parents=True)
    (Path(recipe.output_dir) / NOT_FINITE).write_text("Step 7")
    module._one(Job(recipe, may_fail=True), Permissions())
    assert not ran
    module._one(Job(recipe), Permissions())
    assert ran == [recipe.output_dir]


def test_a_worker_whose_run_was_ended_begins_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def run(recipe: Recipe, **_: Any) -> None:
        ran.append(recipe.output_dir)
        raise Interrupted("SIGTERM: ended")

    monkeypatch.setattr("posttrain.execution.runner.run", run)
    monkeypatch.setattr(module, "_interrupted", [])
    recipes = [Matrix(study()).recipe(run) for run in Matrix(study()).tuning()][:2]
    for recipe in recipes:
        with pytest.raises(Interrupted, match="SIGTERM: ended"):
            module._one(Job(recipe), Permissions())
    assert ran == [recipes[0].output_dir]


def test_the_best_rate_is_chosen_and_one_that_was_not_finite_never(tmp_path: Path) -> None:
    made = study(output_dir=str(tmp_path), tuning={**STUDY["tuning"], "seeds": [7, 8], "learning_rates": [1e-3, 1e-2, 1e-1]})
    for run in Matrix(made).tuning():
        best = {"sft": 1e-3, "both": 1e-2}[run.algorithm]
        finished(run.folder, 0.9 if run.learning_rate == 1e-1 else 0.3 + 0.1 * (run.learning_rate == best))
        if run.learning_rate == 1e-1 and run.seed == 8:
            (run.folder / NOT_FINITE).write_text("nan")
    chosen = choose(made, {run: outcome_of(run.folder) for run in Matrix(made).tuning()})
    assert chosen == {(start, name): {"sft": 1e-3, "both": 1e-2}[name] for start, name in Matrix(made).pairs()}


def test_where_no_rate_keeps_a_run_finite_there_is_none_to_choose() -> None:
    made = study()
    for run in Matrix(made).tuning():
        finished(run.folder, 0.5)
        if run.algorithm == "both":
            (run.folder / NOT_FINITE).write_text("Step 7")
    with pytest.raises(NonFiniteError, match=r"young with both: no learning rate kept all runs finite"):
        choose(made, {run: outcome_of(run.folder) for run in Matrix(made).tuning()})


def test_a_metric_that_an_evaluation_does_not_have_is_named_with_those_that_it_has() -> None:
    made = study(**by("val/pass@1", "val/nll"))
    for run in Matrix(made).tuning():
        finished(run.folder, 0.5)
    with pytest.raises(
        RecipeError, match=r"metrics: val/nll is not in .*lr-0.001.*; there are val/pass@1, val/pass@2, val/length"
    ):
        choose(made, {run: outcome_of(run.folder) for run in Matrix(made).tuning()})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (by("val/pass@3"), r"metrics: val/pass@3 is not measured in runs of sft; .*pass@2"),
        (by("val/nll"), r"metrics: val/nll is not measured in runs of both; .*length"),
        (by("val"), r"metrics: val is not measured in runs of both"),
        (
            {"recipe": {**STUDY["recipe"], "eval": {}}, "earlier": "test", **by("val/nll")},
            r"earlier: test/pass@1 is not measured in runs of sft; there are none, without eval.samples",
        ),
        ({"starts": {"bare": {}}}, r"starts.bare: give the algorithm or the stages that train it"),
    ],
)  # fmt: skip
def test_what_a_study_asks_of_its_runs_is_checked_before_the_first(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        execute(study(**changes), say=lambda _: None)
    assert not Path("study").exists()


def test_a_start_may_be_the_model_that_all_share() -> None:
    shared = {**STUDY["recipe"], "model": {"name": "some/model", "dtype": "bfloat16"}}
    matrix = Matrix(study(recipe=shared, starts={"given": {}}))
    assert not list(matrix.begun()) and matrix.start_model("given", 0) == "some/model"
    assert matrix.recipe(next(matrix.tuning())).model.dtype == "bfloat16"


def test_an_evaluation_has_the_metrics_that_are_known_before_it() -> None:
    model, tokenizer = make_model()
    problems = [Problem(tokenizer("1+1=").input_ids, {"prompt": "1+1=", "answer": "2"}, "row 1")]
    config = EvalConfig(samples=2, k=[2, 1])
    sampling, grader = Sampling(max_tokens=2), TaskGrader("chain")
    found = evaluate(HFEngine(model, tokenizer), tokenizer, problems, grader, sampling, samples=2, ks=config.k)
    names = [name.removeprefix("x/") for name in found.metrics("x") if not name.endswith(("/low", "/high"))]
    assert sorted(names) == sorted(sampled_metrics(config)) and not sampled_metrics(EvalConfig())
