"""Algorithms over rollouts and demonstrations, budgets, and what is sampled before training, as whole runs of a recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from recipes import SCRATCH, Command, in_cells, recipe, write

ROLLOUT = {"questions_per_step": 2, "n": 2, "max_tokens": 6}
CHARACTERS = {**SCRATCH, "tokenizer": {"characters": "0123456789+-*="}}
TASK = {"train": {"task": "running_totals", "rows": 12}}
HYBRIDS = ["hpt", "prefix_rft", "luffy", "srft", "grpo_sft"]


def hybrid(name: str = "hpt", **changes: Any) -> str:
    values = {
        "model": CHARACTERS,
        "algorithm": {"name": name},
        "data": TASK,
        "rollout": ROLLOUT,
        "training": {"max_steps": 2},
    }
    return recipe(**{**values, **changes})


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("name", HYBRIDS)
def test_a_hybrid_runs_from_a_recipe(posttrain: Command, name: str) -> None:
    code, _, err = posttrain("run", hybrid(name))
    assert code == 0, err
    for step in lines("out/metrics.jsonl"):
        assert step["rollout/demonstrated"] == 1
        assert {"weight/rollouts", "weight/demonstrations", "train/demonstrated", "step/tokens"} <= step.keys()


def test_a_set_of_demonstrations_of_its_own(posttrain: Command) -> None:
    data = {**TASK, "demonstrations": {"task": "running_totals", "rows": 7, "seed": 3}}
    code, _, err = posttrain("run", hybrid("chord", algorithm={"name": "chord", "demonstrations": 3}, data=data))
    assert code == 0, err
    first = lines("out/metrics.jsonl")[0]
    assert first["data/demonstrations/rows"] == 7 and 0 < first["train/demonstrated"] <= 1


QUESTIONS = [
    {"prompt": "1+1=", "answer": "2", "demonstration": "2"},
    {"prompt": "2+1=", "answer": "3", "demonstration": "4"},
    {"prompt": "3+1=", "answer": "4", "demonstration": "1234567"},
    {"prompt": "4+1=", "answer": "5"},
]


def questions(**changes: Any) -> dict[str, Any]:
    data = {"train": {"path": write(Path("rows.jsonl"), *QUESTIONS)}, "chat_template": False, **changes}
    return {"data": data, "rewards": [{"name": "exact_match"}]}


def test_demonstrations_that_are_not_used_are_counted_and_named(posttrain: Command) -> None:
    code, _, err = posttrain("run", hybrid(**questions()))
    assert code == 0, err
    first = lines("out/metrics.jsonl")[0]
    counts = {name: n for name, n in first.items() if name.startswith("data/train/")}
    assert counts == {
        "data/train/rows": 4,
        "data/train/wrong_demonstration": 1,
        "data/train/long_demonstration": 1,
        "data/train/no_demonstration": 1,
    }
    assert sorted(line["where"][-1] for line in lines("out/left_out.jsonl")) == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"on_wrong_demonstration": "raise"}, 3, "its demonstration is not right by the rewards' verdict: '4'"),
        ({"on_long_completion": "raise"}, 3, "the demonstration is too long: it has 8 tokens, over the 6 of an answer"),
        ({"train": {"path": "rows.jsonl", "columns": {"prompt": "prompt"}}}, 3, "no row has a demonstration"),
        ({"train": {"path": "rows.jsonl", "columns": {"demonstration": "absent"}}}, 3, "demonstration in absent, which no"),
        ({"demonstrations": {"path": "rows.jsonl"}}, 2, "data.demonstrations: hpt takes none beside its data"),
    ],
)  # fmt: skip
def test_wrong_demonstrations(posttrain: Command, changes: dict[str, Any], code: int, says: str) -> None:
    made = hybrid(**questions(**changes))
    if "columns" in changes.get("train", {}):
        write(Path("rows.jsonl"), {"prompt": "1+1=", "answer": "2"})
    result, _, err = posttrain("run", made)
    assert result == code and says in err, err
    assert not Path("out").exists()


@pytest.mark.parametrize("name", ["hpt", "srft"])
def test_a_verdict_is_asked_for(posttrain: Command, name: str) -> None:
    code, _, err = posttrain("validate", hybrid(name, rewards=[{"name": "length"}]))
    assert code == 2 and f"rewards: {name} asks which rollouts are right" in err


def test_a_budget_ends_the_run_and_is_what_progress_goes_by(posttrain: Command) -> None:
    training = {"max_steps": 50, "budget": {"tokens": 300}, "lr_scheduler_type": "constant", "save_every": 2}
    code, _, err = posttrain("run", hybrid("prefix_rft", training=training))
    assert code == 0, err
    spent = [line["step/tokens"] for line in lines("out/metrics.jsonl")]
    assert sum(spent[:-1]) < 300 <= sum(spent) and 2 < len(spent) < 50
    assert Path("out/final").is_dir()


def test_a_run_with_a_budget_that_was_broken_off_spends_what_is_left(posttrain: Command) -> None:
    training = {"max_steps": 50, "budget": {"tokens": 300}, "lr_scheduler_type": "constant", "save_every": 2}
    made = hybrid("prefix_rft", training=training)
    assert posttrain("run", made, "--output-dir", "whole")[0] == 0
    assert posttrain("run", made)[0] == 0
    for path in Path("out").glob("checkpoint-*"):
        if path.name != "checkpoint-2":
            shutil.rmtree(path)
    shutil.rmtree("out/final")
    assert not Path("out/checkpoint-2").is_dir() or posttrain("run", made)[0] == 0
    untimed = [
        [{k: v for k, v in line.items() if "second" not in k} for line in lines(f"{name}/metrics.jsonl")]
        for name in ("out", "whole")
    ]
    assert untimed[0] == untimed[1]


@pytest.mark.parametrize(
    ("training", "says"),
    [
        ({"budget": {"tokens": 300}}, "budget: take lr_scheduler_type: constant"),
        ({"budget": {}, "lr_scheduler_type": "constant"}, "give either tokens or seconds"),
        ({"budget": {"tokens": 1, "seconds": 1}, "lr_scheduler_type": "constant"}, "give either tokens or seconds"),
    ],
)
def test_wrong_budgets(posttrain: Command, training: dict[str, Any], says: str) -> None:
    code, _, err = posttrain("validate", hybrid(training={"max_steps": 2, **training}))
    assert code == 2 and says in err


def test_the_plan_says_that_a_question_that_fails_is_asked_again(posttrain: Command) -> None:
    (code, helped, _), (_, alone, _) = (posttrain("run", hybrid(name), "--dry-run") for name in ("bread", "hpt"))
    assert code == 0 and "up to three rounds more, from its demonstration" in in_cells(helped) and "three rounds" not in alone


EASY = [{"prompt": f"{i}=", "answer": "1", "completion": "1"} for i in range(6)]


def collecting(algorithm: str, collect: dict[str, Any], **changes: Any) -> str:
    data = {"train": {"path": write(Path("rows.jsonl"), *EASY)}, "chat_template": False, "collect": collect}
    values = {"data": data, "rewards": [{"name": "exact_match"}], "training": {"max_steps": 2, "rows_per_step": 4}}
    rollout = {"rollout": ROLLOUT} if algorithm != "sft" else {}
    return recipe(**{"model": CHARACTERS, "algorithm": {"name": algorithm}, **values, **rollout, **changes})


@pytest.mark.parametrize("algorithm", ["sft", "grpo", "hpt"])
@pytest.mark.parametrize("name", ["rif", "rejection_sampling"])
def test_what_the_start_model_can_answer_is_sampled_once(posttrain: Command, algorithm: str, name: str) -> None:
    made = collecting(algorithm, {name: {"k": 256, "max_tokens": 2}})
    code, _, err = posttrain("run", made)
    if (algorithm, name) == ("grpo", "rejection_sampling"):
        assert code == 2 and "grpo takes none with its questions" in err
        return
    assert code == 0, err
    sampled, first = lines("out/collected.jsonl"), lines("out/metrics.jsonl")[0]
    assert [row["where"][-1] for row in sampled] == list("123456")
    solved = sum(bool(row["answers"] if name == "rejection_sampling" else row["right"]) for row in sampled)
    assert solved > 0 and first["data/collect/questions"] == 6
    assert first["data/collect/rows"] == (6 if (algorithm, name) == ("hpt", "rejection_sampling") else solved)
    assert first.get("data/collect/unsolved", 0) == 6 - solved


def test_what_was_sampled_is_kept_where_nothing_can_be_trained_on(posttrain: Command) -> None:
    made = collecting("sft", {"rif": {"k": 2, "right": 2, "max_tokens": 2}})
    code, _, err = posttrain("run", made)
    assert code == 3 and "not one had 2 right of 2 sampled answers" in err
    assert len(lines("out/collected.jsonl")) == 6 and Path("out/recipe.yaml").is_file()
    assert not Path("out/final").exists()


def test_a_dry_run_samples_nothing(posttrain: Command) -> None:
    code, out, err = posttrain("run", collecting("sft", {"rif": {"k": 2, "max_tokens": 2}}), "--dry-run")
    assert code == 0 and "questions sampled before training" in out, err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "recipes/gpu").glob("*openr1*.yaml")), ids=lambda path: path.stem
)
def test_the_papers_recipes_run_dry_on_rows_of_their_data_sets_form(posttrain: Command, path: Path) -> None:
    answer = "<think>\nadd\n</think>\nIt is \\boxed{2}."
    talk = [{"role": "user", "content": "What is 1+1?"}, {"role": "assistant", "content": answer}]
    row = {"problem": "What is 1+1?", "solution": "2", "answer": "2", "messages": talk}
    rows = write(Path("rows.jsonl"), *[row] * 4)
    small = {**SCRATCH, "from_scratch": {**SCRATCH["from_scratch"], "max_position_embeddings": 16384}}
    changes = {
        "model": small,
        "data.train": {"path": rows, "columns": {"prompt": "problem"}},
        "data.eval.math500": {"path": rows, "columns": {"prompt": "problem"}},
        "rollout.engine": "hf",
        "rollout.vllm": {},
    }
    overrides = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    code, out, err = posttrain("run", str(path), *overrides, "--dry-run")
    assert code == 0, err
    assert "gate=2" in out or "llama" not in path.name
    assert "wrong_demonstration" not in out and "no_demonstration" not in out
