"""What a recipe's data become before anything is trained: each set by its own limits, and no row left out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.execution.prepare.preparation import Prepared, prepare
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.doors.permissions import Permissions
from posttrain.telling import hearing
from recipes import SCRATCH, recipe, write

CONTEXT, ANSWER = 32, 20
ROLLOUT = {"questions_per_step": 2, "n": 2, "max_tokens": 6}
LONG = {"prompt": "1+1=", "answer": "2", "completion": "2" * ANSWER}
GOOD = {"prompt": "1+1=", "answer": "2", "completion": "2"}


def prepared(rows: list[dict[str, Any]], **changes: Any) -> Prepared:
    scratch = {**SCRATCH["from_scratch"], "max_position_embeddings": CONTEXT}
    values = {
        "model": {"from_scratch": scratch, "tokenizer": {"characters": "0123456789+="}},
        "rewards": [{"name": "exact_match"}],
        **changes,
    }
    train = {"path": write(Path("rows.jsonl"), *rows)}
    values["data"] = {"train": train, "chat_template": False, **values.get("data", {})}
    return prepare(load_recipe(recipe(**values)), Permissions())


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_room_for_sampled_answers_is_left_in_questions_and_not_in_a_later_sets_rows() -> None:
    sets = {name: {"path": "rows.jsonl"} for name in ("one", "two")}
    made = prepared([LONG] * 4, data={"eval": sets}, eval={"samples": 1, "max_tokens": ANSWER})
    assert {name: len(rows) for name, rows in {**made.sets.held_out, **made.sets.problems}.items()} == {"one": 4, "two": 4}
    assert [len(made.sets.held_out[name]) for name in sets] == [4, 4]
    assert not any(report.notes for report in made.sets.reports.values())


@pytest.mark.parametrize(
    ("algorithm", "collect", "report"),
    [
        ("sft", {"rejection_sampling": {}}, "train"),
        ("sft", {"rif": {}}, "candidates"),
        ("hpt", {"rejection_sampling": {}}, "candidates"),
        ("grpo", {"rif": {}}, "candidates"),
    ],
)
def test_questions_that_cannot_be_sampled_before_training_are_named(
    algorithm: str, collect: dict[str, Any], report: str
) -> None:
    long = {**GOOD, "prompt": "1+" * 8 + "1="}
    made = prepared(
        [GOOD, {**GOOD, "answer": None}, long],
        data={"collect": {name: {"k": 2, "max_tokens": ANSWER} for name in collect}, "on_bad_row": "skip"},
        algorithm={"name": algorithm},
        **({"rollout": ROLLOUT, "training": {"max_steps": 2}} if algorithm != "sft" else {}),
    )
    assert [problem.where for problem in made.sets.candidates] == ["rows.jsonl:1"]
    assert made.sets.reports[report].rows == 1 and made.sets.reports[report].counters == {"bad": 1, "long_prompt": 1}
    assert [where for _, where, _ in made.sets.reports[report].notes] == ["rows.jsonl:2", "rows.jsonl:3"]
    assert set(made.sets.reports) == {"train", report}


def test_no_question_that_can_be_sampled_is_an_error() -> None:
    with pytest.raises(DataError, match=r"data\.train: no row can be used"):
        prepared([{**GOOD, "answer": None}], data={"collect": {"rif": {"max_tokens": 4}}, "on_bad_row": "skip"})


def test_the_plan_of_epochs_names_the_rows_of_the_last_step_and_a_step_that_is_larger_than_the_data() -> None:
    made = prepared([GOOD] * 10, training={"epochs": 1, "rows_per_step": 8})
    assert made.steps == 2
    assert made.plan() | {"rows of the last step": 2, "passes over the data": 1.0} == made.plan()
    with hearing() as told:
        made = prepared([GOOD] * 10, training={"epochs": 3})
    assert made.steps == 1 and made.plan()["passes over the data"] == 3.0
    assert [one.sentence for one in told if one.rule == "rows-per-step"] == [
        "training.rows_per_step: 30 rows of a step are more than the 10 that the data give."
    ]


@pytest.mark.parametrize(("algorithm", "told"), [("pass_k", 1), ("grpo", 0)])
def test_a_reward_that_nothing_is_learnt_from_is_told(algorithm: str, told: int) -> None:
    rewards = [{"name": "exact_match", "verdict": True}, {"name": "length", "weight": 0.5}]
    options = {"name": algorithm, **({"k": 2} if told else {})}
    with hearing() as heard:
        prepared([GOOD] * 2, algorithm=options, rollout=ROLLOUT, rewards=rewards)
    sentences = [one.sentence for one in heard if one.rule == "rewards-unread"]
    assert len(sentences) == told and all("length is watched only" in one for one in sentences)
