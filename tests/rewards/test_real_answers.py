"""math-verify as it is used here, on real answers: MATH-500, AIME and AMC with rewritings, and GSM8K's sampled solutions."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from posttrain.rewards.grading import MathVerify, Verdict
from posttrain.rewards.reading.answers import final_answer
from rewards.rewritings import RIGHT, WRONG

DATA = os.environ.get("POSTTRAIN_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="POSTTRAIN_TEST_DATA names no folder with the answers")
SETS = ("math500", "aime24", "aime25", "amc23")
SHARE = 0.98
SOLUTIONS = 60  # rows of four; studies/graders.py takes all of them
EACH = pytest.mark.parametrize("each", [pytest.param(1, marks=pytest.mark.system), 5])
"""Of the rows every so many-th wherever tests are; all in the system tier."""


@pytest.fixture(scope="module")
def grader() -> Iterator[MathVerify]:
    made = MathVerify()
    yield made
    made.close()


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (Path(DATA or "") / f"{name}.jsonl").read_text().splitlines()]


def test_reference_answers_are_mathematics(grader: MathVerify) -> None:
    given = [final_answer(row["answer"]) for name in SETS for row in rows(name)]
    refused = [answer for answer in given if not grader.is_valid(answer)]
    assert len(refused) <= 0.01 * len(given), refused
    broken = [answer + "\\frac{" for answer in given] + ["(" + answer + " +" for answer in given]
    assert not any(grader.is_valid(answer) for answer in broken)


@EACH
@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_rewritten_answers(grader: MathVerify, name: str, each: int) -> None:
    counted, faults = Counter[bool](), list[str]()
    given = [(row, {**RIGHT, **WRONG}[name](final_answer(row["answer"]))) for which in SETS for row in rows(which)]
    for row, written in [(row, written) for row, written in given if written is not None][::each]:
        verdict = grader.grade(written, row["prompt"], row["answer"]).verdict
        agrees = not verdict.failed and (verdict is Verdict.RIGHT) == (name in RIGHT)
        counted[agrees] += 1
        faults += [] if agrees else [f"{row['answer']} as {written}: {verdict}"]
    assert counted[True] >= SHARE * counted.total(), faults[:10]
    assert counted.total() > 0


@EACH
def test_all_verdicts_of_sampled_solutions(grader: MathVerify, each: int) -> None:
    disputed = [
        solution["text"]
        for row in json_rows()[::each]
        for solution in row["solutions"]
        if (grader.grade(solution["text"], row["question"], row["reference"]).verdict is Verdict.RIGHT) != solution["correct"]
    ]
    assert disputed == []


@EACH
@pytest.mark.parametrize("name", RIGHT)
def test_solutions_whose_answer_is_written_otherwise_keep_their_verdict(grader: MathVerify, name: str, each: int) -> None:
    seen = Counter[str]()
    for row in json_rows(SOLUTIONS)[::each]:
        for solution in row["solutions"]:
            body, _, answer = solution["text"].rpartition("A: ")
            written = RIGHT[name](answer.strip()) if body and answer.strip().isdigit() else None
            if written is None:
                continue
            right = grader.grade(body + written, row["question"], row["reference"]).verdict is Verdict.RIGHT
            seen["answers"] += 1
            seen["false accepts"] += right and not solution["correct"]
            seen["false rejects"] += solution["correct"] and not right
    assert (seen["false accepts"], seen["false rejects"]) == (0, 0)


def json_rows(count: int | None = None) -> list[dict[str, Any]]:
    with (Path(DATA or "") / "gsm8k_model_solutions.jsonl").open() as file:
        return [json.loads(line) for line in islice(file, count)]
