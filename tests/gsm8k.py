"""GSM8K's rows for tests: the real ones where POSTTRAIN_TEST_DATA is, and generated ones of the same shape anywhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from posttrain import Recipe, RunResult, load_recipe, run

ROOT = Path(__file__).parents[1]
COLUMNS = "columns: {prompt: question, completion: answer}"


def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = os.environ.get("POSTTRAIN_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("POSTTRAIN_TEST_DATA names no folder of real data")
    return Path(folder)


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def generated_questions(path: Path, rows: int, seed: int) -> Path:
    """Rows `question`, `answer`, as in gsm8k_train.jsonl."""
    rng = Random(seed)
    made: list[dict[str, Any]] = []
    for _ in range(rows):
        a, b = rng.randrange(2, 30), rng.randrange(2, 30)
        question = f"Ann has {a} apples and buys {b} more. How many apples has she?"
        made.append({"question": question, "answer": f"She has {a} + {b} = <<{a}+{b}={a + b}>>{a + b}.\n#### {a + b}"})
    return _write(path, made)


def generated_solutions(path: Path, rows: int, seed: int) -> Path:
    """Rows as in gsm8k_model_solutions.jsonl. Its wrong solutions show their kind: they subtract."""
    rng = Random(seed)
    made: list[dict[str, Any]] = []
    for i in range(rows):
        a, b = rng.randrange(2, 30), rng.randrange(2, 30)
        right, wrong = f"{a} + {b} = {a + b}\nA: {a + b}", f"{a} - {b} = {a - b}\nA: {a - b}"
        solutions = [{"text": right, "correct": True}, {"text": wrong, "correct": False}]
        made.append({"question": f"Number {i}: {a} apples and {b} more?", "solutions": solutions})
    return _write(path, made)


def demonstrations(algorithm: str, train: Path, held_out: Path, output: Path, *more: str) -> RunResult:
    """`posttrain run recipes/start/gsm8k_cpu.yaml` on other rows."""
    return run(_recipe("start/gsm8k_cpu.yaml", *overrides(algorithm, train, held_out, output, *more)))


def overrides(algorithm: str, train: Path, held_out: Path, output: Path, *more: str) -> list[str]:
    """What turns the recipe to other rows."""
    sets = (f"data.train={{path: {train}, {COLUMNS}}}", f"data.eval.held_out={{path: {held_out}, {COLUMNS}, limit: 100}}")
    return [f"algorithm={{name: {algorithm}}}", *sets, f"output_dir={output}", *more]


def preferences(pairs: Path, output: Path, *more: str) -> RunResult:
    """`posttrain run recipes/start/gsm8k_preference_cpu.yaml` on other rows."""
    sets = (f"data.train.path={pairs}/train.jsonl", f"data.eval.held_out.path={pairs}/held_out.jsonl")
    return run(_recipe("start/gsm8k_preference_cpu.yaml", *sets, f"output_dir={output}", *more))


def _recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(ROOT / "recipes" / name, list(overrides))
