"""Sampling before training: which questions stay, what becomes of right answers, and going on after a break."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain import Completion, Request, Sampling
from posttrain.data.rows import Example, Problem, Row
from posttrain.errors import DataError
from posttrain.execution.prepare import presample as module
from posttrain.execution.prepare.presample import Sampled, filtered, presample, summary
from posttrain.recipe import Recipe
from posttrain.rewards.grading import Grade, Verdict
from posttrain.settings.data.collect import CollectConfig
from posttrain.telling import hearing

K = 4
PROBLEMS = [Problem([i], {"prompt": f"q{i}", "answer": "r"}, f"row {i}") for i in range(5)]
ANSWERS = ["wwww", "rwww", "rRwr", "rrrr", "fffw"]
"""What is sampled for each question: right (r, and R, written otherwise), wrong, or not gradable."""


class Oracle:
    """An engine and a tokenizer whose tokens are letters, and a grader of them."""

    reads_cut_off = True

    def __init__(self, fails_at: int | None = None) -> None:
        self.asked: list[int] = []
        self._fails_at = fails_at

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        if self._fails_at in [request.prompt[0] for request in requests]:
            raise KeyboardInterrupt
        self.asked += [request.prompt[0] for request in requests]
        assert all(request.n == K for request in requests)
        return [[Completion((ord(a),), (-1.0,), "stop") for a in ANSWERS[request.prompt[0]]] for request in requests]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(map(chr, tokens))

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        verdict = {"r": Verdict.RIGHT, "R": Verdict.RIGHT, "w": Verdict.WRONG, "f": Verdict.TIMEOUT}[completion]
        return Grade(verdict, None)


def config(**chosen: Any) -> CollectConfig:
    return CollectConfig.model_validate({name: {"k": K, **options} for name, options in chosen.items()})


def run(path: Path, oracle: Any, made: CollectConfig) -> list[Sampled]:
    return presample(made, PROBLEMS, oracle, oracle, oracle, Sampling(max_tokens=2), path)


def test_right_failed_and_different_answers_are_counted(tmp_path: Path) -> None:
    sampled = run(tmp_path / "c.jsonl", Oracle(), config(rif={}))
    assert [one.right for one in sampled] == [0, 1, 3, 4, 0]
    assert [one.failed for one in sampled] == [0, 0, 0, 0, 3]
    assert sampled[2].answers == [[ord("r")], [ord("R")]]
    assert summary(sampled, K) == {
        "collect/questions": 5,
        "collect/correct": 8 / 20,
        "collect/failed_grades": 3 / 20,
    }


def test_a_right_answer_that_was_cut_off_is_counted_and_not_learnt(tmp_path: Path) -> None:
    class Cut(Oracle):
        def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
            answers = super().generate(requests, sampling)
            return [[dataclasses.replace(one, finish="length") for one in group] for group in answers]

    sampled = run(tmp_path / "c.jsonl", Cut(), config(rejection_sampling={}))
    assert sampled[3].right == 4 and sampled[3].answers == []
    with pytest.raises(DataError, match="not one had 1 right of 4"):
        filtered(config(rejection_sampling={}), PROBLEMS, sampled, demonstrations=False)
    assert filtered(config(rif={}), PROBLEMS, sampled, demonstrations=False)[1].rows == 3


def test_a_run_that_was_broken_off_samples_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 2)
    path, made = tmp_path / "c.jsonl", config(rif={})
    with pytest.raises(KeyboardInterrupt):
        run(path, Oracle(fails_at=3), made)
    path.write_text(path.read_text() + '{"where": "ro')
    again = Oracle()
    resumed = run(path, again, made)
    assert again.asked == [2, 3, 4]
    assert resumed == run(tmp_path / "whole.jsonl", Oracle(), made)
    assert [json.loads(line)["where"] for line in path.read_text().splitlines()] == [p.where for p in PROBLEMS]


def test_answers_to_other_questions_are_not_used_again_and_that_is_told(tmp_path: Path) -> None:
    path, made = tmp_path / "c.jsonl", config(rif={})
    run(path, Oracle(), made)
    asked = [*PROBLEMS[:4], dataclasses.replace(PROBLEMS[4], columns={"prompt": "q4", "answer": "another"})]
    again: Any = Oracle()
    with hearing() as told:
        presample(made, asked, again, again, again, Sampling(max_tokens=2), path)
    assert again.asked == [0, 1, 2, 3, 4] and [one.rule for one in told] == ["collected-anew"]
    with hearing() as told:
        presample(made, asked, again, again, again, Sampling(max_tokens=2), path)
    assert len(again.asked) == 5 and not told


@pytest.mark.parametrize(("right", "kept"), [(1, [1, 2, 3]), (2, [2, 3]), (4, [3])])
def test_questions_stay_that_are_answered_often_enough(right: int, kept: list[int], tmp_path: Path) -> None:
    made = config(rif={"right": right})
    sampled = run(tmp_path / "c.jsonl", Oracle(), made)
    data, report = filtered(made, PROBLEMS, sampled, demonstrations=False)
    assert [row.where for row in data] == [f"row {i}" for i in kept]
    assert report.counters["unsolved"] == 5 - len(kept) and report.rows == len(kept)
    rows = [Example((Row(np.array([i]), np.array([7]), np.array([True])),), f"row {i}") for i in range(5)]
    assert filtered(made, rows, sampled, demonstrations=False)[0] == [rows[i] for i in kept]


@pytest.mark.parametrize(("most", "made"), [(1, [1, 2, 3]), (2, [1, 2, 2, 3])])
def test_right_answers_become_examples(most: int, made: list[int], tmp_path: Path) -> None:
    chosen = config(rejection_sampling={"per_question": most})
    sampled = run(tmp_path / "c.jsonl", Oracle(), chosen)
    data, report = filtered(chosen, PROBLEMS, sampled, demonstrations=False)
    assert [row.where for row in data] == [f"row {i}" for i in made] and report.rows == len(made)
    for example in data:
        assert isinstance(example, Example)
        (row,) = example.rows
        assert row.prompt.tolist() == [int(example.where[-1])] and row.mask.all()
        assert chr(int(row.completion[0])) in "rR"


def test_right_answers_become_demonstrations_and_all_questions_stay(tmp_path: Path) -> None:
    chosen = config(rejection_sampling={})
    asked = [dataclasses.replace(problem, demonstration=(1, 2)) for problem in PROBLEMS]
    data, _ = filtered(chosen, asked, run(tmp_path / "c.jsonl", Oracle(), chosen), demonstrations=True)
    shown = [row.demonstration for row in data if isinstance(row, Problem)]
    assert shown == [None, (ord("r"),), (ord("r"),), (ord("r"),), None]


@pytest.mark.parametrize(
    ("beta", "values", "within"),
    [
        (0.5, [math.log(math.e**2 * right + 1 - right) / 2 for right in (0.25, 0.75, 1.0, 0.5)], 1e-12),
        (1e-3, [1.0, 1.0, 1.0, 1.0], 2e-3),
        (1e6, [0.25, 0.75, 1.0, 0.5], 1e-6),
    ],
)
def test_a_question_is_worth_what_the_best_policy_near_the_start_earns(
    beta: float, values: list[float], within: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Towards 0 the best answer's reward, for a large beta the mean; what failed to be graded is in no mean."""
    monkeypatch.setattr(f"{__name__}.ANSWERS", [*ANSWERS[:4], "ffrw"])
    made = config(value={"beta": beta})
    data, report = filtered(made, PROBLEMS, run(tmp_path / "c.jsonl", Oracle(), made), demonstrations=False)
    assert [row.where for row in data] == ["row 1", "row 2", "row 3", "row 4"] and report.counters["unsolved"] == 1
    found = [row.columns["value"] for row in data if isinstance(row, Problem)]
    assert found == pytest.approx(values, abs=within)


def test_nothing_left_is_said(tmp_path: Path) -> None:
    sampled = [Sampled("row 0", 0, 0, [])]
    with pytest.raises(DataError, match="of 1 questions not one had 2 right of 4 sampled answers"):
        filtered(config(rif={"right": 2}), PROBLEMS, sampled, demonstrations=False)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "give one of rif, rejection_sampling, value, relabel, pairs, feedback and generate"),
        ({"rif": {}, "value": {}}, "give one of"),
        ({"rif": {"k": 2, "right": 3}}, "3 of 2 answers cannot be"),
        ({"rif": {"vllm": {"mode": "server"}}}, "need engine: vllm"),
    ],
)
def test_wrong_settings(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CollectConfig.model_validate(values)


def recipe_of_values(**value: Any) -> dict[str, Any]:
    return {
        "model": {"from_scratch": {}, "tokenizer": "characters"},
        "algorithm": {"name": "a_star_po"},
        "data": {"train": {"task": "chain", "rows": 4}, "collect": {"value": value}},
        "rollout": {"n": 1, "questions_per_step": 2, "temperature": 0.7, "top_p": 0.9, "max_tokens": 9},
        "training": {"max_steps": 1},
        "output_dir": "runs/x",
    }


def test_what_a_question_is_worth_is_of_the_policy_that_rollouts_are_sampled_from() -> None:
    steps = [{"rif": {}}, {"value": {}}]
    listed = recipe_of_values()
    listed["data"] = {**listed["data"], "collect": steps}
    for given in (recipe_of_values(), recipe_of_values(temperature=0.7, max_tokens=9), listed):
        recipe = Recipe.model_validate(given)
        chosen = recipe.data.steps[-1]
        assert (chosen.temperature, chosen.top_p, chosen.max_tokens) == (0.7, 0.9, 9)
        assert Recipe.model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize(("name", "other"), [("temperature", 1.0), ("temperature", 0), ("top_p", 1.0), ("max_tokens", 8)])
def test_what_a_question_is_worth_to_another_policy_is_refused(name: str, other: float) -> None:
    with pytest.raises(ValueError, match=rf"data.collect.value.{name}: .*this is {other} where rollout.{name} is"):
        Recipe.model_validate(recipe_of_values(**{name: other}))
