"""pass@k, majority and intervals, by brute force."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from posttrain import MajorityVote
from posttrain.data.rows import Problem
from posttrain.estimator.batch import Request
from posttrain.execution.evaluation import Estimate, estimate, evaluate, majority, pass_at_k, wilson
from posttrain.rewards.grading import Grade, MathVerify, Verdict
from posttrain.rollout.engine import Completion, Sampling
from posttrain.telling import hearing
from rewards.test_majority import of

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
def test_an_interval_of_equal_lengths_is_a_point(values: list[float]) -> None:
    assert estimate(values, shares=False) == Estimate(values[0], values[0], values[0])


@pytest.mark.parametrize(("n", "high"), [(8, 0.3244), (48, 0.0741), (1, 0.7935)])
def test_none_right_of_n_and_all_right_of_n_have_an_interval(n: int, high: float) -> None:
    none, all_ = estimate([0.0] * n), estimate([1.0] * n)
    assert (none.mean, none.low, none.high) == (0.0, 0.0, pytest.approx(high, abs=5e-5))
    assert (all_.mean, all_.low, all_.high) == (1.0, pytest.approx(1 - high, abs=5e-5), 1.0)
    half = estimate([0.5] * n)
    assert 0 < half.low < 0.5 < half.high < 1


def test_few_that_are_right_or_wrong_have_wilsons_interval() -> None:
    """As scipy has it; of more, or of shares between, the bootstrap's is kept."""
    for right, n in ((1, 8), (14, 29)):
        found, there = estimate([1.0] * right + [0.0] * (n - right)), binomtest(right, n).proportion_ci(method="wilson")
        assert (found.low, found.high) == pytest.approx((there.low, there.high), abs=1e-12)
    many = estimate([1.0] + [0.0] * 29)
    assert many.low == 0.0 and many.high != pytest.approx(wilson(1 / 30, 30)[1], abs=1e-3)


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
    reads_cut_off: bool = True

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

    def equal(self, first: str, second: str) -> bool:
        return False


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


@dataclass
class Writer:
    """An engine and a tokenizer in one: one question, answered by these texts."""

    texts: list[str]
    finish: Any = "stop"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Completion]]:
        return [[Completion((i,), (0.0,), self.finish) for i in range(len(self.texts))]]

    def decode(self, tokens: Sequence[int], skip_special_tokens: bool) -> str:
        return self.texts[tokens[0]] if len(tokens) else ""


def asked(writer: Any, answer: str, grader: MathVerify) -> Any:
    problems = [Problem([], {"prompt": "q", "answer": answer}, "x:1")]
    return evaluate(writer, writer, problems, grader, Sampling(max_tokens=2), samples=len(writer.texts))


@pytest.fixture(scope="module")
def mathematics() -> Iterator[MathVerify]:
    grader = MathVerify()
    yield grader
    grader.close()


def test_a_majority_of_equal_wrong_answers_is_wrong_however_they_are_written(mathematics: MathVerify) -> None:
    texts = [f"\\boxed{{{text}}}" for text in (".25", "1/4", "25\\%", ".250", ".5", "1/2")]
    found = asked(Writer(texts), "0.5", mathematics)
    assert found.estimates["majority@6"].mean == 0.0 and found.estimates["pass@1"].mean == pytest.approx(2 / 6)
    votes = [one.score for one in MajorityVote(mathematics).judge(of(*texts))]
    assert votes == [1.0] * 4 + [0.0] * 2  # the reward sees the same classes


def test_an_answer_that_was_cut_off_is_none_and_that_is_told(mathematics: MathVerify) -> None:
    writer = Writer(["we add them: 50 + 75 is", "\\boxed{125}"], "length")
    with hearing() as heard:
        found = asked(writer, "125", mathematics)
    assert found.estimates["pass@1"].mean == 0.0 and found.shares["unparsable"] == found.shares["cut_off"] == 1.0
    assert [told.rule for told in heard] == ["answers-cut-off"] and "max_tokens 2" in heard[0].sentence
    asked_for = MathVerify(reads_cut_off=True)
    try:
        assert asked(writer, "125", asked_for).estimates["pass@1"].mean == 1.0
    finally:
        asked_for.close()
