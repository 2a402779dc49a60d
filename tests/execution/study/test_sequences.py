"""Studies over a sequence of tasks: what they may say, the stages of their runs, the line of models, and the tables."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from execution.study.sequences import EVALUATED, SEQUENCE, TASKS, outcome, reported, sequence
from posttrain.errors import RecipeError
from posttrain.execution.study.config import load_study
from posttrain.execution.study.continual.line import Point, above, line_of
from posttrain.execution.study.execute import report
from posttrain.execution.study.matrix import Matrix
from posttrain.execution.study.results import read_results, save_results
from posttrain.execution.study.table import tables
from posttrain.settings.doors.permissions import Permissions
from recipes import Command

FIRST, SECOND, THIRD = TASKS
CONTINUAL = SEQUENCE["continual"]
BY_HAND = ((0.1, 0.2, 0.0, 0.5), (0.8, 0.3, 0.1, 0.4), (0.6, 0.9, 0.3, 0.5), (0.5, 0.7, 1.0, 0.3))
"""At the start and after each of three tasks: these, and a general set."""
KEPT = ((0.1, 0.2, 0.0, 0.5), (0.8, 0.3, 0.1, 0.4), (0.8, 0.8, 0.2, 0.5), (0.8, 0.6, 0.9, 0.4))


def over(**changes: Any) -> dict[str, Any]:
    return {"continual": {**CONTINUAL, **changes}}


def arm(**changes: Any) -> dict[str, Any]:
    return {"algorithms": {"sft": {"algorithm": {"name": "sft"}, **changes}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (over(tasks=[FIRST]), r"continual.tasks: one task is no sequence"),
        (over(tasks=[FIRST, {**SECOND, "set": "nowhere"}], anchor=None), r"tasks.1.set: nowhere is of no set in recipe"),
        (over(tasks=[FIRST, {**SECOND, "set": None}], anchor=None), r"tasks.1.set: two is of no set in recipe.data.eval"),
        (over(tasks=[FIRST, {"name": "two", "set": "second"}]), r"continual.tasks.1.train: is required"),
        (over(tasks=[FIRST, {**SECOND, "name": "one"}]), r"tasks: two tasks have the name one"),
        (over(tasks=[FIRST, {**SECOND, "set": "one"}]), r"tasks: two tasks have the set one"),
        (over(tasks=[{**FIRST, "name": "start", "set": "one"}, SECOND]), r"start is the model that a run begins from"),
        (over(tasks=[{**FIRST, "share": 0.5}, SECOND, THIRD]), r"tasks: share: 1 of 3 tasks have one, and together 0.5"),
        (over(tasks=[FIRST, {**SECOND, "rate": -1}]), r"tasks.1.rate: input should be greater than 0"),
        (over(tasks=[FIRST, {**SECOND, "changes": {"eval": {}}}]), r"tasks.1.changes: eval: a stage of a sequence has that"),
        (over(tasks=[FIRST, {**SECOND, "changes": {"data": {"train": {}}}}]), r"changes: data.train: it is said by train of"),
        (over(general=["nowhere"]), r"continual.general.0: nowhere is of no set"),
        (over(general=["second"]), r"general: second is the set of a task"),
        (over(anchor={"from": "four"}), r"anchor.from: four is neither start nor a task before the last \(one, two\)"),
        (over(anchor={"from": "three"}), r"anchor.from: three is neither start nor a task before the last"),
        (over(anchor={}, general=[]), r"anchor.from: of what the start model knows no set is named"),
        (over(anchor={"alphas": [1]}), r"anchor.alphas.0: input should be less than 1"),
        (over(anchor={"alphas": [0.5, 0.5]}), r"anchor.alphas: each once"),
        (over(taks=TASKS), r"continual.taks: unknown key; did you mean tasks"),
        (arm(data=[1]), r"algorithms.sft.data: keys are expected here, not \[1\]"),
        (arm(stages=[{}]), r"algorithms.sft.stages: the stages of a sequence are its tasks"),
        (arm(rounds={"times": 2}), r"algorithms.sft.rounds: the stages of a sequence"),
        (arm(data={"train": {"task": "chain", "rows": 8}}), r"algorithms.sft.data.train: all algorithms train on the same"),
        (
            {"recipe": {**SEQUENCE["recipe"], "data": {**SEQUENCE["recipe"]["data"], "train": FIRST["train"]}}},
            r"recipe.data.train: tasks and start models have their own",
        ),
    ],
)  # fmt: skip
def test_wrong_sequences(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**deepcopy(SEQUENCE), **changes}))
    with pytest.raises(RecipeError, match=says):
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (arm(data={"replay": {"of": ["four"]}}), r"data.replay: four is no earlier stage \(1-one\)"),
        (arm(model={"adapter": {"kind": "none"}}), r"algorithms.sft over continual.tasks: model.adapter.kind"),
        ({"recipe": {**SEQUENCE["recipe"], "eval": {}}, "tuning": {**SEQUENCE["tuning"], "metrics": ["val/nll"]}},
         r"continual: one/pass@1 is not measured in runs of .*; there are none, without eval.samples"),
        (over(tasks=[FIRST, {**SECOND, "changes": {"trainig": {}}}], anchor=None), r" over continual.tasks: trainig: unk"),
        (over(tasks=[FIRST, {**SECOND, "name": "base"}], anchor=None), r"base says where a stage starts from"),
    ],
)  # fmt: skip
def test_what_its_runs_cannot_do_is_told_before_the_first(
    changes: dict[str, Any], says: str, tmp_path: Path, posttrain: Command
) -> None:
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({**deepcopy(SEQUENCE), **changes}))
    code, _, err = posttrain("compare", str(tmp_path / "study.yaml"))
    assert code == 2 and not Path("study").exists()
    with pytest.raises(RecipeError, match=says):
        Matrix(load_study(tmp_path / "study.yaml")).check(Permissions())
    assert "Traceback" not in err


def test_every_run_is_the_sequence_and_its_line_merges_what_it_leaves() -> None:
    tasks = [{**FIRST, "share": 0.5}, {**SECOND, "share": 0.25, "rate": 0.5}, {**THIRD, "share": 0.25, "changes": {}}]
    matrix = Matrix(sequence(**over(tasks=tasks)))
    for run in reported(sequence()):
        recipe, line = matrix.recipe(run), matrix.line(run)
        assert [stage.name for stage in recipe.stages] == ["one", "two", "three"]
        assert [stage.training.learning_rate for stage in recipe.stages] == [1e-3, 5e-4, 1e-3]
        assert [stage.training.budget.tokens for stage in recipe.stages if stage.training.budget] == [150, 75, 75]
        assert all(stage.data.evaluated.keys() == {*EVALUATED, "val"} for stage in recipe.stages)
        replayed = [stage.data.replay.sources if stage.data.replay else {} for stage in recipe.stages]
        expected = [[], ["1-one"], ["1-one", "2-two"]] if run.algorithm == "replay" else [[], [], []]
        assert [list(sources) for sources in replayed] == expected
        assert line is not None and line.output_dir == f"{run.folder}/anchor"
        [merged] = line.stages
        assert merged.merge is not None and merged.data.replay is None and merged.eval == recipe.eval
        assert merged.merge.told == f"wise_ft of {run.folder}/2-two/final and {run.folder}/final (alpha 0.5)"
    adapted = {"adapter": {"r": 2, "alpha": 4}}
    of_parts = sequence(**arm(model=adapted, training={"update": [{"name": "inverse_norm"}]}), **over(anchor={}))
    assert Matrix(of_parts).check(Permissions()).startswith("0 start models, 2 runs")
    from_start = Matrix(of_parts).line(reported(sequence())[0])
    assert from_start is not None and [one.merge.places[0] for one in from_start.stages if one.merge] == ["some/model"] * 3
    assert len({matrix.key(run), Matrix(sequence(**over(anchor=None, tasks=tasks))).key(run)}) == 2


def test_what_is_above_a_line_by_hand() -> None:
    line = [Point(0, 0.9, 0.1), Point(0.5, 0.7, 0.5), Point(1, 0.3, 0.7)]
    assert above(Point(1, 0.8, 0.5), line) == pytest.approx(0.5 - 0.3)  # half way between the first two
    assert above(Point(1, 0.5, 0.5), line) == pytest.approx(0.5 - 0.6)
    assert above(Point(1, 0.7, 0.6), line) == pytest.approx(0.6 - 0.5)
    assert above(Point(1, 0.95, 0.2), line) == pytest.approx(0.2 - 0.1)  # keeps more than all
    assert above(Point(1, 0.1, 0.7), line) == pytest.approx(0.0)  # keeps less than all
    bent = [Point(0, 0.5, 0.1), Point(0.5, 0.8, 0.6), Point(1, 0.2, 0.8)]
    assert above(bent[-1], bent) == 0 and above(Point(1, 0.5, 0.9), bent) == pytest.approx(0.9 - 0.7)


def test_its_tables_have_the_measures_the_matrix_and_the_line(tmp_path: Path) -> None:
    study = sequence(output_dir=str(tmp_path))
    made = {
        run: outcome(BY_HAND if run.algorithm == "sft" else KEPT, {"0.5": (0.6, 0.8, 0.7, 0.4)}) for run in reported(study)
    }
    folder = report(study, made, lambda _: None)
    table = (folder / "table.md").read_text()
    assert table.count("Every run trains on one, two, three, in this order") == 1
    [titles, _, start, sft, replay, *_] = [
        [cell.strip().partition(" ± ")[0] for cell in line.split("|")] for line in table.splitlines() if line[:1] == "|"
    ]
    shown = dict(zip(titles, sft, strict=True))
    measures = ("average", "forgetting", "backward", "forward", "general")
    assert [shown[name] for name in measures] == ["0.733", "0.250", "-0.250", "0.200", "-0.200"]
    assert start[titles.index("average")] == "0.100" and shown["KL from start, nats per answer"] == "1.500"
    assert replay[titles.index("forgetting - sft")] == "-0.150" and sft[titles.index("forgetting - sft")] == ""
    plain = table.replace(" ± 0.000", "")
    assert "| *start* | | 0.100 | 0.200 | 0.000 | 0.500 |" in plain
    assert "| sft | two | 0.600 | 0.900 | 0.300 | 0.500 |" in plain
    for row in ("sft | 0 | 0.750 | 0.300 |", "sft | 0.5 | 0.700 | 0.700 |", "sft | 1 | 0.600 | 1.000 | 0.000 |"):
        assert f"| {row}" in plain
    assert "| replay | 1 | 0.700 | 0.900 | 0.200 |" in plain  # the baseline's line has 0.7 where it keeps 0.7
    first = json.loads((folder / "results.json").read_text())[0]
    assert first["measures"]["forgetting"] == pytest.approx(0.25) and first["stages"]["two"]["eval/one/pass@1"] == 0.6
    save_results(tmp_path / "kept.json", read_results(folder / "results.json"), only=[f"eval/{name}/pass@1" for name in
                 EVALUATED] + ["kl_per_answer"])  # fmt: skip
    assert tables(study, read_results(tmp_path / "kept.json")) == table
    assert (folder / "plots/given-line.svg").read_text().count("<path") > 10


def test_a_model_of_the_line_that_was_not_evaluated_is_named() -> None:
    study = sequence()
    assert study.continual is not None
    run = reported(study)[0]
    with pytest.raises(RecipeError, match=r"the model at alpha 0.5 of its line has no eval/one/pass@1"):
        line_of(study.continual, run, outcome(BY_HAND, {}))
