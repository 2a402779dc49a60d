"""A function in TRL's form, by dotted path, in a process of its own: what it is given, and whatever it does."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain import Function, Group
from posttrain.errors import SetupError

MODULE = """
    import math, os, sys, time
    import numpy as np

    calls = 0

    def lengths(prompts, completions, **columns):
        return [len(p) + len(c) for p, c in zip(prompts, completions)]

    def of_columns(completions, answer, completion_ids, level, **rest):
        print("a print is no answer")
        assert sorted(rest) == ["prompts"]
        return [float(c == a) + len(ids) + l for c, a, ids, l in zip(completions, answer, completion_ids, level)]

    def without_rest(completions):
        return np.array([len(c) for c in completions], np.float32)

    def some(completions, **_):
        return [None, True, np.float64(0.5)]

    def counts(completions, **_):
        global calls
        calls += 1
        return [calls] * len(completions)

    def raises(completions, **_):
        raise KeyError("price")

    def text(completions, **_):
        return ["good"] * len(completions)

    def infinite(completions, **_):
        return [math.inf] * len(completions)

    def dies(completions, **_):
        os._exit(0)

    def hangs(completions, **_):
        if completions[0] == "a":
            time.sleep(60)
        return [1.0] * len(completions)

    def floods(completions, **_):
        os.write(1, b"x" * 10_000_000)
        sys.stdout.write("y" * 1000)
        return [1.0] * len(completions)

    not_a_function = 3
"""
GROUP = Group(
    completions=["a", "bb", "ccc"], tokens=[[1], [2, 2], [3, 3, 3]], finished=[True] * 3,
    columns={"prompt": "why?", "answer": "bb", "level": 10},
)  # fmt: skip


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Function]]:
    (tmp_path / "mine.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.chdir(tmp_path)
    made: list[Function] = []

    def make(name: str, deadline: float = 30.0) -> Function:
        made.append(Function(f"mine.{name}", deadline=deadline))
        return made[-1]

    yield make
    for reward in made:
        reward.close()


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("lengths", [5, 6, 7]),
        ("of_columns", [11, 13, 13]),
        ("without_rest", [1, 2, 3]),
        ("some", [None, 1, 0.5]),
        ("floods", [1] * 3),
    ],
)
def test_it_is_given_lists_and_its_numbers_are_scores(make: Callable[..., Function], name: str, scores: list[Any]) -> None:
    reward = make(name)
    judged = reward.judge(GROUP)
    assert reward.name == name and [one.score for one in judged] == scores
    assert [one.right for one in judged] == [None if score is None else score > 0 for score in scores]


def test_it_may_keep_what_it_likes_between_calls(make: Callable[..., Function]) -> None:
    reward = make("counts")
    assert [reward.judge(GROUP)[0].score for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "fault"), [("raises", "raised KeyError: 'price'"), ("text", "raised ValueError"), ("dies", "crash")]
)
def test_what_it_does_wrong_is_a_fault(make: Callable[..., Function], name: str, fault: str) -> None:
    reward = make(name)
    for _ in range(2):
        assert all(one.score is None and (one.fault or "").startswith(fault) for one in reward.judge(GROUP))


def test_a_hang_ends_its_process_and_the_next_call_has_another(make: Callable[..., Function]) -> None:
    reward = make("hangs", deadline=0.5)
    started = time.monotonic()
    assert [one.fault for one in reward.judge(GROUP)] == ["timeout"] * 3 and time.monotonic() - started < 5
    other = Group(completions=["b"], tokens=[[1]], finished=[True], columns=GROUP.columns)
    assert [one.score for one in reward.judge(other)] == [1.0]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("absent.reward", "No module named 'absent'"),
        ("mine.absent", "has no attribute 'absent'"),
        ("mine.not_a_function", "3 is not a callable object"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(make: Callable[..., Function], path: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"The reward function {path}: .*{says}"):
        Function(path, deadline=1)
