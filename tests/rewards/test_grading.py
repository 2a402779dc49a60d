"""Graders: right, wrong, unparsable, timeout and crash; hostile answers; real answers of real models."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.rewards.grading import GRADERS, ExactMatch, MathVerify, TaskGrader, Verdict
from posttrain.rewards.reading.answers import final_answer
from rewards.used import used

DATA = os.environ.get("POSTTRAIN_TEST_DATA")
ROWS = 200


@pytest.fixture(scope="module")
def judge() -> Iterator[MathVerify]:
    grader = MathVerify()
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so #### 18", "18"),
        ("#### 1\n#### 2 ", "2"),
        ("it is \\boxed{3}.", "3"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{3} #### 4", "3"),
        ("#### Step 1: Add\n2 + 3\n\n#### Step 2: Conclude\n\\boxed{5}.", "5"),
        ("\\boxed{5}\n\n#### Verification\nIt is 5, not 6.", "5"),
        ("\\boxed{3 #### 4", ""),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{ x \\right.}", "\\left\\{ x \\right."),
        ("#### 7\nA: 8", "7"),
        ("so\nThe answer: 8", "8"),
        ("\\boxed{3", ""),
        ("\\boxed{}", ""),
        ("####", ""),
        ("  42  ", "42"),
        ("", ""),
    ],
)
def test_final_answer(text: str, expected: str) -> None:
    assert final_answer(text) == expected


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        ("first 3, then #### 18", "18", "right"),
        ("#### 17", "18", "wrong"),
        ("#### 18", "Worked: 2*9\n#### 18", "right"),
        ("the result is \\boxed{\\frac{1}{2}}", "0.5", "right"),
        ("\\boxed{\\frac{1}{3}}", "0.5", "wrong"),
        ("$x = \\sqrt{2}$", "\\sqrt 2", "right"),
        ("#### 1,000", "1000", "right"),
        ("#### $1,000", "1000", "right"),
        ("#### 18.", "18", "right"),
        ("#### 18 dollars", "18", "right"),
        ("A: 18", "18", "right"),
        ("\\boxed{\\binom{20000}{10000}}", "18", "wrong"),
        ("I do not know", "18", "unparsable"),
        ("", "18", "unparsable"),
        ("####", "18", "unparsable"),
        ("\ud800", "18", "unparsable"),
        ("\x00\n\r", "18", "unparsable"),
    ],
)
def test_math_verify(judge: MathVerify, completion: str, answer: str, verdict: str) -> None:
    assert judge.grade(completion, "", answer).verdict == verdict


def test_right_answers_vote_for_one_value(judge: MathVerify) -> None:
    """A majority vote counts equal values: one half must not be split between its spellings."""
    grades = {judge.grade(text, "", "0.5") for text in ("#### 0.5", "\\boxed{0.50}", "so #### .5", "\\boxed{\\frac{1}{2}}")}
    assert len(grades) == 1 and grades.pop().verdict is Verdict.RIGHT


@pytest.mark.system  # its like are in `test_hostile` wherever tests are
@pytest.mark.parametrize("completion", ["#### 10^{10^{10}}", "\\boxed{9^{9^{9^{9}}}}"])
def test_a_hostile_answer_is_out_at_its_deadline_and_the_next_is_graded(completion: str) -> None:
    grader = MathVerify(deadline=1.0)
    try:
        before = used()
        grade = grader.grade(completion, "", "18")
        assert grade.verdict.failed and used() - before < 1.0 + 2.0  # with its start
        assert grader.grade("#### 18", "", "18").verdict is Verdict.RIGHT
    finally:
        grader.close()


def test_a_child_that_was_killed_is_a_crash_and_is_started_again() -> None:
    grader = MathVerify()
    try:
        [pid] = grader._pool.pids
        os.kill(pid, signal.SIGKILL)
        assert grader.grade("#### 1", "", "1").verdict is Verdict.CRASH
        assert grader.grade("#### 1", "", "1").verdict is Verdict.RIGHT
    finally:
        grader.close()
    grader.close()  # a second time does nothing


@settings(max_examples=40)
@given(st.text(max_size=40) | st.text("0123456789^{}()\\+-*/.,=$# frac", max_size=20))
def test_no_completion_makes_a_grader_raise(judge: MathVerify, completion: str) -> None:
    for grader in (judge, ExactMatch(), TaskGrader("chain"), TaskGrader("countdown")):
        assert isinstance(grader.grade(completion, "1,2=3", "3").verdict, Verdict)


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        ("#### 1,000", "1000", "right"),
        ("\\boxed{Yes}", "yes", "right"),
        ("#### $5.", "5", "right"),
        ("#### 0.5", "1/2", "wrong"),
        ("#### 1,2", "12", "wrong"),
        ("#### 1,2", "1, 2", "right"),
        ("(1,234,567)", "(1234567)", "right"),
        ("1,2345", "12345", "wrong"),
        ("0,125", "0125", "wrong"),
        ("", "1", "unparsable"),
        ("#### ", "1", "unparsable"),
    ],
)
def test_exact_match(completion: str, answer: str, verdict: str) -> None:
    assert ExactMatch().grade(completion, "", answer).verdict == verdict


def test_a_task_is_graded_by_its_own_verifier() -> None:
    grader = TaskGrader("chain")
    assert grader.grade("52#2", "3*5+7=", "2") == grader.grade("#2", "3*5+7=", "2")
    assert grader.grade("#3", "3*5+7=", "2").verdict is Verdict.WRONG
    assert set(GRADERS) == {"math_verify", "exact_match"}


@pytest.mark.skipif(DATA is None, reason="POSTTRAIN_TEST_DATA names no folder with gsm8k_model_solutions.jsonl")
def test_verdicts_on_real_solutions_are_those_of_the_data(judge: MathVerify) -> None:
    assert DATA is not None
    with (Path(DATA) / "gsm8k_model_solutions.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(ROWS), strict=False)]
    seen: Counter[str] = Counter()
    for row in rows:
        for solution in row["solutions"]:
            verdict = judge.grade(solution["text"], row["question"], row["reference"]).verdict
            right = verdict is Verdict.RIGHT
            seen["answers"] += 1
            seen["false accepts"] += right and not solution["correct"]
            seen["false rejects"] += solution["correct"] and not right
            seen["failed"] += verdict.failed
    assert seen == {"answers": 4 * ROWS, "false accepts": 0, "false rejects": 0, "failed": 0}
