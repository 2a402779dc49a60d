"""What is written is judged, and kept in a file: whatever it was broken off at, and of this model, data and settings only."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.data.rows import Problem
from posttrain.execution.prepare.collect import writing
from posttrain.execution.prepare.collect.answer import Said, Written
from posttrain.execution.prepare.collect.writers import Loaded, loaded
from posttrain.execution.prepare.collect.writing import Judge, write
from posttrain.model.load import load
from posttrain.rewards.grading import ExactMatch, TaskGrader
from posttrain.rollout.engine import Sampling
from posttrain.settings.data.generate import Generate
from posttrain.settings.model import ModelConfig
from posttrain.telling import hearing

PROBLEMS = [Problem([20 + i, 30, 40], {"prompt": f"{i}+1=", "answer": str(i)}, f"row {i}") for i in range(5)]
SCRATCH = {
    "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1, "initializer_range": 0.5},
    "tokenizer": "characters",
}


def model(seed: int = 0) -> Loaded:
    made, tokenizer = load(ModelConfig.model_validate(SCRATCH), seed=seed)
    sampling = Sampling(max_tokens=4, seed=3)
    return loaded(made, tokenizer, Generate.model_validate({}), sampling, compute="float32", allow_remote=False, joins=False)


def run(path: Path, writer: Any, problems: Any = PROBLEMS, **settings: Any) -> list[Written]:
    return write(writer, problems, 3, Judge("grader", ExactMatch()), {"n": 3, **settings}, path)


def test_it_goes_on_from_any_question_to_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "CHUNK", 2)
    whole = run(tmp_path / "whole.jsonl", model())
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    assert [json.loads(line)["where"] for line in lines] == [problem.where for problem in PROBLEMS]
    assert len({answer.text for one in whole for answer in one.answers}) > 10
    for broken in range(5):
        path = tmp_path / f"{broken}.jsonl"
        path.write_text("".join(lines[:broken]) + lines[broken][:20])
        assert run(path, model()) == whole and path.read_text() == "".join(lines)


class Silent:
    """Says nothing, and must not be asked."""

    reads = (None, [], None)

    def __init__(self, name: str) -> None:
        self._name, self.asked = name, 0

    def identity(self) -> dict[str, Any]:
        return {"served": self._name}

    def write(self, asked: Any, n: int) -> list[list[Said]]:
        self.asked += len(asked)
        return [[Said("7", 1, True)] * n for _ in asked]

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({}, None),
        ({"name": "another"}, "by another model"),
        ({"settings": {"temperature": 0.5}}, "with other settings"),
        ({"problems": [dataclasses.replace(PROBLEMS[0], prompt=[9]), *PROBLEMS[1:]]}, "for other questions"),
    ],
)
def test_what_another_model_wrote_or_to_other_questions_is_not_used_and_that_is_told(
    changed: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "c.jsonl"
    run(path, Silent("one"))
    again = Silent(changed.get("name", "one"))
    with hearing() as told:
        run(path, again, changed.get("problems", PROBLEMS), **changed.get("settings", {}))
    assert again.asked == (5 if says else 0)
    assert [says in one.sentence for one in told if says] == [True] * bool(says) and len(told) == bool(says)


def test_answers_are_graded_with_what_the_prompt_begins_them_with() -> None:
    said = [Said("2", 1, True, begun="1"), Said("2", 1, True), Said("12", 2, False)]
    found = Judge("grader", ExactMatch())(Problem([1], {"prompt": "q", "answer": "12"}, "row"), said)
    assert [one.right for one in found.answers] == [True, False, False] and found.right == 1 and found.majority is None
    assert [one.text for one in found.answers] == ["2", "2", "12"]


@pytest.mark.parametrize(
    ("texts", "majority", "right"),
    [
        (["12#3", "#3", "#4", "x"], "3", [True, True, False, False]),
        (["#3", "#4", "12#4", "#3"], None, [None, None, None, None]),
        (["x", "y", "#3"], None, [None, None, None]),
    ],
)
def test_the_majority_of_a_questions_answers_is_right_without_a_label(
    texts: list[str], majority: str | None, right: list[bool | None]
) -> None:
    """Two ways to the same 3 are two votes for it (LMSI); a tie, or most that say nothing, is no majority."""
    problem = Problem([1], {"prompt": "q"}, "row")
    found = Judge("majority", TaskGrader("chain"))(problem, [Said(text, 1, True) for text in texts])
    assert found.majority == majority and [one.right for one in found.answers] == right
    assert Judge("none", None)(problem, [Said("#3", 1, True)]).answers[0].right is None
