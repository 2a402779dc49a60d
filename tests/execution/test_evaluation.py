"""pass@k, majority and intervals, by brute force."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from posttrain.data.rows import Problem
from posttrain.estimator.batch import Request
from posttrain.execution.evaluation import Estimate, estimate, evaluate, majority, pass_at_k
from posttrain.rewards.grading import Grade, Verdict
from posttrain.rollout.engine import Completion, Sampling

R, W, U, T, C = Verdict.RIGHT, Verdict.WRONG, Verdict.UNPARSABLE, Verdict.TIMEOUT, Verdict.CRASH


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_mean_over_all_choices(n: int) -> None:
    for right in range(n + 1):
        for k in range(1, n + 1):
            tries = list(combinations([i < right for i in range(n)], k))
            assert pass_at_k(n, right, k) == pytest.approx(sum(map(any, tries)) / len(tries), abs=1e-12)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("1", R)], 1.0),
        ([("1", R), ("1", R), ("2", W)], 1.0),
        ([("1", R), ("2", W), ("2", W)], 0.0),
        ([("1", R), ("2", W)], 0.5),
        ([("1", R), ("2", W), ("3", W)], 1 / 3),
        ([("2", W), ("2", W), (None, U), (None, U), (None, U)], 0.0),
        ([("1", R), (None, U), (None, U)], 1.0),  # an answer that cannot be read has no vote
        ([(None, U), (None, U)], 0.0),
    ],
)
def test_majority(votes: list[tuple[str | None, Verdict]], expected: float) -> None:
    group = [Grade(verdict, value) for value, verdict in votes]
    assert majority(group) == pytest.approx(expected)
    assert majority(group[::-1]) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[0.5], [1.0] * 9, [0.0, 0.0]])
def test_an_interval_of_equal_values_is_a_point(values: list[float]) -> None:
    assert estimate(values) == Estimate(values[0], values[0], values[0])


def test_an_interval_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.0, 400)
    found = estimate(values.tolist())
    half = 1.96 * values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert estimate(values.tolist()) == found  # a fixed seed: the same interval every time


@dataclass
class Scripted:
    """An engine, a tokenizer and a grader in one: each completion is one token that names its own grade."""

    script: list[list[tuple[Verdict, str | None]]]

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        self.asked = [(list(request.prompt), request.n) for request in requests]
        return [
            [Completion((i, j) if j else (i,), (0.0,), "length" if j == 0 else "stop") for j in range(len(group))]
            for i, group in enumerate(self.script)
        ]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool) -> str:
        return f"{tokens[0]}/{tokens[1] if len(tokens) > 1 else 0}"

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        problem, sample = map(int, completion.split("/"))
        assert (prompt, answer) == (f"q{problem}", f"a{problem}")
        return Grade(*self.script[problem][sample])


def evaluated(script: list[list[tuple[Verdict, str | None]]], **options: Any) -> Any:
    stub: Any = Scripted(script)
    problems = [Problem([i], {"prompt": f"q{i}", "answer": f"a{i}"}, f"x:{i + 1}") for i in range(len(script))]
    result = evaluate(stub, stub, problems, stub, Sampling(max_tokens=2), samples=len(script[0]), **options)
    assert stub.asked == [([i], len(script[0])) for i in range(len(script))]
    return result


def test_an_evaluation_of_two_problems() -> None:
    found = evaluated([[(R, "1"), (W, "2"), (R, "1"), (U, None)], [(W, "3")] * 4], ks=[2, 4])
    means = {name: value.mean for name, value in found.estimates.items()}
    expected = {"pass@1": 0.25, "pass@2": (1 - 1 / 6) / 2, "pass@4": 0.5, "majority@4": 0.5, "length": 1.75}
    assert means == pytest.approx(expected)
    assert found.shares == pytest.approx({"failed_grades": 0.0, "unparsable": 1 / 8, "cut_off": 2 / 8})
    metrics = found.metrics("eval/x")
    assert metrics["eval/x/pass@1/low"] <= metrics["eval/x/pass@1"] <= metrics["eval/x/pass@1/high"]


def test_failed_grades_are_in_no_mean() -> None:
    found = evaluated([[(R, "1"), (T, None), (C, None), (W, "2")], [(T, None)] * 4, [(R, "1")] * 4], ks=[4])
    assert found.estimates["pass@1"].mean == pytest.approx((0.5 + 1.0) / 2)
    assert found.estimates["pass@4"].mean == 1.0  # only the third problem has four grades
    assert found.estimates["majority@4"].mean == pytest.approx(0.75)
    assert found.shares["failed_grades"] == pytest.approx(6 / 12)


def test_nothing_but_failed_grades_gives_no_rate_rather_than_zero() -> None:
    found = evaluated([[(T, None), (C, None)]])
    assert "pass@1" not in found.estimates and found.shares["failed_grades"] == 1.0
