"""The reward of programs by their tests: what is read of a completion, what it is worth, and whose fault it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.isolated.jail.levels import LEVELS, offered
from posttrain.rewards.isolated.jail.tested import read_tests
from posttrain.rewards.kinds.unit_tests import UnitTests, UnitTestsReward, program
from posttrain.rewards.values import Refused

pytestmark = pytest.mark.skipif(all(offered()[level] for level in LEVELS[:-1]), reason="this machine has no jail")
RIGHT = "def both(a, b=1):\n    return sorted({*a, b})"
TESTS = ["assert both([3, 3]) == [1, 3]", "assert both((2,), b=0) == [0, 2]"]
CHECK = """
import math
def check(candidate):
    assert candidate([3]) == [1, 3]
    for n in range(3):
        assert math.isclose(candidate([n])[0], min(n, 1))
check(both)
"""
RAISES = """
try:
    both(None)
except TypeError:
    pass
else:
    raise AssertionError("it should have refused")
"""


@pytest.fixture(scope="module")
def reward() -> Iterator[UnitTests]:
    made = UnitTestsReward(score="share", seconds=1).build(None)  # type: ignore[arg-type]
    yield made
    made.close()


def judged(reward: UnitTests, tests: Any, *completions: str, finished: bool = True) -> list[Judgement]:
    many, columns = len(completions), {"prompt": "Both?", "tests": tests}
    return reward.judge(Group(completions=completions, tokens=[[1]] * many, finished=[finished] * many, columns=columns))


@pytest.mark.parametrize("tests", [TESTS, json.dumps(TESTS), "\n".join(TESTS), CHECK, RAISES], ids=range(5))
def test_tests_are_statements_in_any_of_their_forms(tests: Any, reward: UnitTests) -> None:
    right, wrong = judged(reward, tests, RIGHT, "def both(a=(), b=1): return 0")
    assert (right.score, right.right, right.fault) == (1, True, None)
    assert wrong.score == 0 and wrong.right is False


def test_the_share_is_of_the_tests_that_pass_and_the_outcome_is_codes(reward: UnitTests) -> None:
    half = "def both(a, b=1):\n    return [1, 3]"
    [one] = judged(reward, TESTS, half)
    assert one.score == 0.5 and not one.right
    scores = UnitTestsReward()
    by_outcome = UnitTests.__new__(UnitTests)
    by_outcome._config, by_outcome._tester, by_outcome._threads = scores, reward._tester, reward._threads
    worth = judged(by_outcome, TESTS, RIGHT, half, "def both(a): return a[9]", "def both(", "raise SystemExit")
    assert [one.score for one in worth] == [1.0, -0.3, -0.6, -1.0, -0.6]
    [cut] = judged(by_outcome, TESTS, RIGHT, finished=False)
    assert cut.score == -1 and cut.right is False


@pytest.mark.parametrize(
    "tests",
    ["", [], {"inputs": ["1"], "outputs": []}, "assert both(", "import nothing_of_this_name\nassert both([])", "x = 1"],
)
def test_tests_that_are_none_are_nobodys_failure(tests: Any, reward: UnitTests) -> None:
    [one] = judged(reward, tests, RIGHT)
    assert one.score is None and one.fault is not None


def test_what_a_program_prints_is_compared_outside(reward: UnitTests) -> None:
    tests = {"inputs": ["1 2", "3 4"], "outputs": ["3", "7\n"]}
    adds = "print(sum(map(int, input().split())))"
    scores = [one.score for one in judged(reward, tests, adds, "print(3)", "print(", "input()\n1/0")]
    assert scores == [1, 0.5, 0, 0]


@pytest.mark.parametrize(
    "value",
    [
        "10**400",
        "-0.0",
        "float('inf')",
        "(1, [2, {3}], {'a': (None, True)})",
        "b'\\xff'",
        "'\\ud800'",
        "frozenset('ab')",
        "1j",
    ],
)
def test_plain_values_come_back_as_they_are(value: str, reward: UnitTests) -> None:
    [one] = judged(
        reward, [f"v = {value}\nassert repr(same(v)) == repr(v) and type(same(v)) is type(v)"], "def same(x): return x"
    )
    assert one.score == 1, one


def test_a_test_that_gives_what_is_no_plain_data_cannot_be_run(reward: UnitTests) -> None:
    [one] = judged(reward, ["assert both(lambda: 1) == 1"], RIGHT)
    assert one.fault is not None and "no plain data" in one.fault


@pytest.mark.parametrize(
    ("completion", "found"),
    [
        ("```python\na = 1\n```", "a = 1\n"),
        ("first ```\na\n``` then ```py\nb\n``` so", "b\n"),
        ("``` a ```", " a "),
        ("a = 1", "a = 1"),
        ("<think>```\nx\n```</think>```\ny\n```", "y\n"),
        ("```python\na\n```\nand ```open", "a\n"),
        ("<think>a = 1", None),
        ("  \n", None),
    ],
)
def test_a_program_is_the_last_closed_block_or_all(completion: str, found: str | None) -> None:
    assert program(completion) == found


def test_a_text_around_has_the_program() -> None:
    with pytest.raises(ValidationError, match=r"it lacks \{program\}"):
        UnitTestsReward(around="def f(): pass")
    with pytest.raises(Refused, match="of one length"):
        read_tests({"inputs": ["1"]})
