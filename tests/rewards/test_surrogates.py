r"""Rewards that need no label: form, length, both together, repetition, the overlong punishment; and countdown."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain import (
    Boxed,
    Countdown,
    Format,
    FormatAndLength,
    Group,
    Length,
    Overlong,
    Pattern,
    Repetition,
    Reward,
    Tags,
    Weighted,
)
from posttrain.rewards.judge import Judges
from posttrain.rewards.kinds._form import Form
from posttrain.rewards.kinds._length import length_score
from posttrain.rewards.kinds.countdown import solves
from posttrain.rewards.kinds.repetition import repeated


def group(*completions: str, lengths: Sequence[int] | None = None, **columns: Any) -> Group:
    sizes = lengths or [len(text) for text in completions]
    return Group(
        completions=completions,
        tokens=[list(range(size)) for size in sizes],
        finished=[True] * len(completions),
        columns={"prompt": "q", **columns},
    )


def scores(reward: Reward, given: Group) -> list[Any]:
    return [one.score for one in reward.judge(given)]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def boxed() -> Iterator[Boxed]:
    form = Boxed()
    yield form
    form.close()


@pytest.mark.parametrize(
    ("completion", "has"),
    [
        ("so \\boxed{1}", True),
        ("\\boxed{\\frac{3}{2}}", True),
        ("\\boxed{x^2+12y=1}", True),
        ("\\boxed{(0,\\infty)}", True),
        ("\\boxed{\\sqrt{2}} holds.", True),
        ("\\boxed{}", False),
        ("\\boxed{x +* 2}", False),
        ("\\boxed{(0,1 }", False),
        ("\\boxed{1", False),
        ("1", False),
        ("", False),
        ("$\\frac{3}{2}$", False),
        ("<think>\\boxed{1}</think>", False),
        ("<think>\\boxed{</think> \\boxed{1}", True),
        ("\\boxed{1} and then \\boxed{}", False),
        ("\\boxed{x +* 2} #### 1", False),
        ("\\boxed{} #### 5", False),
        ("\\boxed{1}\n#### Note: (all +* of it", True),
        ("\\boxed{\\frac43}", True),
        ("\\boxed{11\\sqrt2}", True),
        ("\\boxed{\\left( 3, \\frac{\\pi}{2} \\right)}", True),
        ("\\boxed{\\left( 3, \\frac{\\pi}{2}}", False),
        ("\\boxed{\\frac{3}}", False),
        ("\\boxed{1,,2}", False),
        ("\\boxed{\\text{}}", False),
    ],
)
def test_boxed_mathematics(boxed: Boxed, completion: str, has: bool) -> None:
    """The cases of arXiv:2505.19439, A.8, and more."""
    assert (boxed.answer(completion) is not None) == has


@pytest.mark.parametrize(
    ("completion", "has"),
    [
        ("<think>a</think><answer>b</answer>", True),
        ("  <think>\na\n</think>\n\n<answer>b</answer>\n", True),
        ("<think></think><answer></answer>", True),
        ("<think>a</think>b<answer>c</answer>", False),
        ("<answer>c</answer><think>a</think>", False),
        ("<think>a</think><answer>c</answer><answer>d</answer>", False),
        ("<think>a<answer>c</answer>", False),
        ("<think>a</think>", False),
        ("<think>a<answer>b</think>c</answer>", False),
        ("", False),
    ],
)
def test_tags(completion: str, has: bool) -> None:
    assert (Tags().answer(completion) is not None) == has


def test_the_answer_in_a_form_is_told(boxed: Boxed) -> None:
    def answers(form: Form, *completions: str) -> list[str | None]:
        given = group(*completions)
        told = [one.answer for one in Format(form).judge(given)]
        assert told == [one.answer for one in FormatAndLength(form, Length(max_length=10)).judge(given)]
        return told

    assert answers(boxed, "so \\boxed{ x^2 }", "\\boxed{(}", "x") == ["x^2", None, None]
    assert answers(Tags(), "<think>a</think><answer> b\n</answer>", "<answer>b</answer>") == ["b", None]
    assert answers(Pattern("[0-9]*#([0-9])"), "12#3", "3") == ["3", None]
    assert answers(Pattern("a(b)?(c)?"), "ac", "a") == ["c", "a"]
    assert answers(Pattern("[0-9]*"), "12", "a") == ["12", None]


def test_a_pattern_is_of_the_whole_completion_and_cannot_freeze() -> None:
    assert scores(Format(Pattern("[0-9]*#[0-9]")), group("12#3", "#4", "12#3 ", "")) == [1.0, 1.0, 0.0, 0.0]
    started = time.process_time()
    [judged] = Format(Pattern("(a+)+b")).judge(group("a" * 60))
    assert (judged.score, judged.fault) == (0.0, None)
    [judged] = Format(Pattern("(a|aa)+(a|aa)+c(a|b)+$")).judge(group("a" * 400))
    assert (judged.score, judged.fault) == (None, "timeout") and time.process_time() - started < 6


@pytest.mark.parametrize(
    ("tokens", "expected"), [(0, 0.0), (768, 0.75), (1536, 1.0), (2304, 0.5), (2622, 0.0), (3072, -1.0), (4000, -1.0)]
)
def test_the_length_score_has_the_papers_values(tokens: int, expected: float) -> None:
    assert length_score(tokens, max_length=3072, peak=0.5, shape="quadratic") == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("tokens", "expected"), [(0, 0.0), (768, 0.5), (1536, 1.0), (2304, 0.0), (3072, -1.0)])
def test_the_polyline_is_2x_and_3_minus_4x(tokens: int, expected: float) -> None:
    assert length_score(tokens, max_length=3072, peak=0.5, shape="polyline") == pytest.approx(expected)


@given(st.integers(0, 100), st.floats(0.05, 0.95), st.sampled_from(["quadratic", "polyline"]))
def test_the_length_score_rises_to_its_peak_and_falls(tokens: int, peak: float, shape: Any) -> None:
    here, there = (length_score(n, max_length=100, peak=peak, shape=shape) for n in (tokens, tokens + 1))
    assert -1 <= here <= 1
    if tokens + 1 <= 100 * peak:
        assert here <= there
    elif tokens >= 100 * peak:
        assert here >= there


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_format_and_length(weight: float) -> None:
    """R_f + R_l in the right format, min(0, R_l) otherwise (arXiv:2505.19439, eq. 5); 0.5 is the weight of its code."""
    reward = FormatAndLength(Pattern("#[0-9]"), Length(max_length=10), format_weight=weight)
    judged = scores(reward, group("#1", "#1", "#1", "no", "no", "no", lengths=[5, 10, 0, 5, 10, 0]))
    assert judged == pytest.approx([weight + 1, weight - 1, weight, 0.0, -1.0, 0.0])


@pytest.mark.parametrize(("length", "expected"), [(0, 0.0), (80, 0.0), (90, -0.5), (100, -1.0), (300, -1.0)])
def test_overlong(length: int, expected: float) -> None:
    assert scores(Overlong(max_length=100, cache=20), group("x", lengths=[length])) == [pytest.approx(expected)]


@pytest.mark.parametrize(
    ("tokens", "n", "share"),
    [
        ([], 2, 0.0),
        ([1], 2, 0.0),
        ([1, 2, 3], 2, 0.0),
        ([1, 1, 1, 1], 2, 2 / 3),
        ([1, 2, 1, 2, 1], 2, 0.5),
        ([7] * 101, 4, 97 / 98),
    ],
)
def test_repetition(tokens: list[int], n: int, share: float) -> None:
    assert repeated(tokens, n) == pytest.approx(share)
    one = Group(completions=["x"], tokens=[tokens], finished=[True], columns={"prompt": "q"})
    assert scores(Repetition(n=n), one) == [pytest.approx(-share)]


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("44 + 19 - 35 + 30", False),
        ("(44 - 35) * (19 - 7)", True),
        ("(44-35)*(19-7)", True),
        ("44-35*(19-7)", False),
        ("(44 - 35) * (19 - 7) + 0", False),
        ("(44 - 35) * 12", False),
        ("108", False),
        ("-7 + 19 * 44 - 35", False),
        ("-(7 - 19) * (44 - 35)", True),
        ("-(7 - 19) * +(44 - 35)", False),
        ("(44 - 35) ** (19 - 7)", False),
        ("(44 - 35", False),
        ("__import__('os')", False),
        ("44**35-19+7", False),
        ("(" * 150 + "44", False),
        ("", False),
    ],
)
def test_countdown_expressions(expression: str, right: bool) -> None:
    assert solves(expression, [44, 19, 35, 7], Fraction(108)) == right


def test_countdown_is_exact_and_reads_the_answer() -> None:
    assert solves("8/(3-8/3)", [3, 3, 8, 8], Fraction(24))
    assert not solves("1/(2-2)", [1, 2, 2], Fraction(1))
    given = group("<think>1+2</think><answer>1 + 2</answer>", "so\n2+1 = 3", "3", "<answer></answer>", nums=[1, 2], target=3)
    assert [one.right for one in Countdown().judge(given)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("-2+8*4", True),
        ("so $8 \\times 4 - 2$.", False),
        ("$8 \\times 4 - 2$.", True),
        ("<answer>\\boxed{4 \\cdot 8 - 2 = 30}</answer>", True),
        ("we get \\boxed{4 × 8 − 2}", True),
        ("\\boxed{4 × 8 − 2}\nIt is 30.", False),
        ("8 ÷ 2 \\div 4", False),
    ],
)
def test_countdown_reads_latex(completion: str, right: bool) -> None:
    [judged] = Countdown().judge(group(completion, nums=[2, 4, 8], target=30))
    assert judged.right == right


def test_countdown_divides_in_latex() -> None:
    [judged] = Countdown().judge(group("$8 \\div 2 ÷ 4$", nums=[2, 4, 8], target=1))
    assert judged.right


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"nums": "[1, 2]", "target": 3}, "the column nums holds '[1, 2]', and a list of whole numbers is expected"),
        ({"nums": [1.7, 2.2], "target": 3}, "the column nums holds [1.7, 2.2], and a list of whole numbers is expected"),
        ({"nums": ["a"], "target": 3}, "the column nums holds 'a', and a number is expected"),
        ({"nums": 5, "target": 3}, "the column nums holds 5, and a list of whole numbers is expected"),
        ({"nums": [1, 2], "target": "three"}, "the column target holds 'three', and a number is expected"),
    ],
)
def test_columns_that_countdown_cannot_read_are_named(columns: dict[str, Any], says: str) -> None:
    rewarded = Judges([Weighted(Countdown())]).judge(group("1+2", **columns))
    assert rewarded.faults["countdown"] == (says,)
    whole = Countdown().judge(group("1+2", nums=[1.0, "2"], target=3.0))
    assert [one.right for one in whole] == [True]
