"""Runs over a source that is read as it comes: its rows, its cursor in checkpoints, what is told, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.execution.planning import plan
from posttrain.recipe.recipe import load_recipe
from recipes import Command, recipe, write

TRAINING = {"rows_per_step": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "save_every": 2}
STREAM = {"path": "rows.jsonl", "stream": True, "shuffle_buffer": 6}


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{i} + 1 =", "completion": f"{i + 1}", "chosen": f"{i}", "rejected": "-"} for i in range(10, 27)]
    write(Path("rows.jsonl"), *rows[:5], {"prompt": "1 + 1 ="}, *rows[5:])


def made(steps: int, train: Any = STREAM, **changes: Any) -> str:
    data = {"train": train, "chat_template": False, "max_tokens": 32, "on_bad_row": "skip", **changes.pop("data", {})}
    return recipe(data=data, training={**TRAINING, "max_steps": steps}, **changes)


def steps(folder: str = "out") -> list[dict[str, Any]]:
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


@pytest.mark.parametrize("algorithm", ["sft", pytest.param("dpo", marks=pytest.mark.system)])
def test_a_run_goes_on_where_its_source_was_left(algorithm: str, posttrain: Command) -> None:
    named = {"algorithm": {"name": algorithm}}
    assert posttrain("run", made(10, **named), "--output-dir", "whole")[0] == 0
    assert posttrain("run", made(4, **named))[0] == 0
    code, _, err = posttrain("run", made(10, **named))
    assert code == 0, err
    assert steps() == steps("whole") and len(steps()) == 10
    assert Path("out/final/model.safetensors").read_bytes() == Path("whole/final/model.safetensors").read_bytes()
    assert "begins again" in Path("out/warnings.jsonl").read_text()
    if algorithm == "sft":
        assert steps()[0]["data/train/records"] == 7 and steps()[0]["data/train/bad"] == 1
        assert "rows.jsonl:6" in Path("out/warnings.jsonl").read_text()


def test_in_its_own_order_it_trains_on_the_first_rows_first(posttrain: Command) -> None:
    assert posttrain("run", made(3, {**STREAM, "shuffle_buffer": 1}))[0] == 0
    write(Path("twelve.jsonl"), *map(json.loads, Path("rows.jsonl").read_text().splitlines()[:13]))
    assert posttrain("run", made(3, {"path": "twelve.jsonl"}), "--output-dir", "all")[0] == 0
    read = [[step["train/tokens"] for step in steps(folder)] for folder in ("out", "all")]
    assert sum(read[0]) == sum(read[1])


def test_the_plan_says_what_is_not_known() -> None:
    told = plan(load_recipe(made(3, data={"eval": {"held": {"path": "rows.jsonl", "limit": 2}}})))
    assert str(told["training rows"]).startswith("not known") and "passes over the data" not in told
    assert "tokens per step, by the first 17 rows" in told
    assert any("what it shares with evaluation sets is not told" in sentence for sentence in told["warnings"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data": {"train": STREAM}, "training": {"rows_per_step": 4, "epochs": 1}}, "training.epochs"),
        ({"data": {"train": {"path": "rows.jsonl", "shuffle_buffer": 6}}}, "shuffle_buffer"),
        ({"data": {"train": {"mix": {"a": STREAM}}}}, "train.mix.a: stream"),
        ({"data": {"train": STREAM, "eval": {"held": STREAM}}}, "eval.held: stream"),
        ({"data": {"train": STREAM, "eval_share": 0.5}}, "eval_share"),
        ({"data": {"train": STREAM, "transforms": [{"name": "as_text"}]}}, "transforms"),
        ({"data": {"train": STREAM, "max_tokens": 32}, "algorithm": {"name": "awr"}}, "data.train.stream: awr"),
        (
            {
                "data": {"train": STREAM, "max_tokens": 32},
                "algorithm": {"name": "grpo"},
                "rewards": [{"name": "exact_match"}],
                "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4},
                "training": {"max_steps": 1},
            },
            "data.train.stream: grpo",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], said: str, posttrain: Command) -> None:
    code, _, err = posttrain("run", recipe(**changes))
    assert code == 2 and said in err, err
