"""A function in TRL's form, by dotted path, in a process of its own: what it is given, and whatever it does."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain import Function, Group, Judgement
from posttrain.errors import SetupError
from posttrain.rewards.kinds._called import as_reward
from posttrain.rewards.values import LONGEST_FAULT

MODULE = """
    import math, os, subprocess, sys, time
    import numpy as np

    calls = 0

    def lengths(prompts, completions, **columns):
        return [len(p) + len(c) for p, c in zip(prompts, completions)]

    def of_columns(completions, answer, completion_ids, level, **rest):
        print("a print is no answer")
        assert sorted(rest) == ["beside", "prompts"]
        return [float(c == a) + len(ids) + l for c, a, ids, l in zip(completions, answer, completion_ids, level)]

    def without_rest(completions):
        return np.array([len(c) for c in completions], np.float32)

    def of_sampled(completions, beside):
        return [None if b else float(len(completions) - sum(beside)) for b in beside]

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

    def of_shell(completions, **_):
        return [float(len(subprocess.run(["cat"], capture_output=True).stdout)) for _ in completions]

    def forks(completions, **_):
        global calls
        calls += 1
        if calls == 1:
            os.fork()
        return [float(len(completions[0]))] * len(completions)

    def string(completions, **_):
        return "1" * len(completions)

    def by_row(completions, **_):
        return {i: 0.5 for i in range(len(completions))}

    def strings(completions, **_):
        return ["1"] * len(completions)

    def wordy(completions, **_):
        raise ValueError("x" * 3_000_000)

    def of_gold(completions, gold, **_):
        return [1.0] * len(completions)

    def of_answers(completions, answer):
        return [1.0] * len(completions)

    def of_turns(prompts, completions, **_):
        assert all([message["role"] for message in prompt] == ["system", "user"] for prompt in prompts)
        assert all(list(answer[0]) == ["role", "content"] and answer[0]["role"] == "assistant" for answer in completions)
        return [len(p[-1]["content"]) + len(answer[0]["content"]) for p, answer in zip(prompts, completions)]

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
        ("of_shell", [0] * 3),
    ],
)
def test_it_is_given_lists_and_its_numbers_are_scores(make: Callable[..., Function], name: str, scores: list[Any]) -> None:
    reward = make(name)
    judged = reward.judge(GROUP)
    assert reward.name == name and [one.score for one in judged] == scores
    assert [one.right for one in judged] == [None if score is None else score > 0 for score in scores]


def test_it_is_told_which_completion_is_none_of_what_was_sampled(make: Callable[..., Function]) -> None:
    """By path and in this process."""

    def of_sampled(completions: list[str], beside: list[bool]) -> list[float | None]:
        return [None if b else float(len(completions) - sum(beside)) for b in beside]

    rewards = [make("of_sampled"), as_reward(of_sampled)]
    for reward in rewards:
        for number, scores in ((1, [2, 2, None]), (0, [3, 3, 3])):
            judged = reward.judge(replace(GROUP, beside=number))
            assert [one.score for one in judged if isinstance(one, Judgement)] == scores


@pytest.mark.parametrize("begun", [[], [{"role": "assistant", "content": "It is "}]])
def test_a_conversation_reaches_it_as_messages(make: Callable[..., Function], begun: list[dict[str, str]]) -> None:
    """A turn that is to be continued is no part of what is asked: the answers begin with it."""
    prompt = [{"role": "system", "content": "Add."}, {"role": "user", "content": "why?"}, *begun]
    group = replace(GROUP, columns={**GROUP.columns, "prompt": prompt})
    judged = make("of_turns").judge(group)
    assert [(one.score, one.fault) for one in judged] == [(5, None), (6, None), (7, None)]


def test_it_may_keep_what_it_likes_between_calls(make: Callable[..., Function]) -> None:
    reward = make("counts")
    assert [reward.judge(GROUP)[0].score for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("raises", "raised KeyError: 'price'"),
        ("text", "gave str as a score"),
        ("strings", "gave str as a score"),
        ("string", "gave str, not a list"),
        ("by_row", "gave dict, not a list"),
        ("wordy", "raised ValueError: xxx"),
        ("of_gold", "needs the parameter gold, which is no column; there are answer, level, prompts, completions"),
        ("dies", "crash"),
    ],
)
def test_what_it_does_wrong_is_a_fault(make: Callable[..., Function], name: str, fault: str) -> None:
    reward = make(name)
    for _ in range(2):
        judged = reward.judge(GROUP)
        assert all(one.score is None and (one.fault or "").startswith(fault) for one in judged)
        assert all(len(one.fault or "") <= LONGEST_FAULT for one in judged)


def test_a_copy_of_its_process_answers_nobody_elses_request(make: Callable[..., Function]) -> None:
    reward = make("forks")
    for length in range(1, 12):
        judged = reward.judge(Group(completions=["a" * length], tokens=[[1]], finished=[True], columns=GROUP.columns))
        assert [one.score if one.fault is None else one.fault for one in judged] in ([length], ["crash"])


def test_a_column_that_cannot_be_sent_is_named_where_it_is_asked_for(make: Callable[..., Function]) -> None:
    columns = {**GROUP.columns, "when": datetime.datetime(2020, 1, 1)}
    group = Group(completions=["a"], tokens=[[1]], finished=[True], columns=columns)
    [judged] = make("lengths").judge(group)
    assert judged.fault is not None and "cannot be given the column when: datetime is no JSON" in judged.fault
    assert [one.score for one in make("of_answers").judge(group)] == [1.0]


def test_the_working_folder_hides_no_module_of_ours(make: Callable[..., Function], tmp_path: Path) -> None:
    for name in ("inspect", "json", "selectors", "posttrain"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert [one.score for one in make("counts").judge(GROUP)] == [1.0] * 3
    assert not (tmp_path / "ran").exists()


def test_a_hang_ends_its_process_and_the_next_call_has_another(make: Callable[..., Function]) -> None:
    reward = make("hangs", deadline=0.5)
    assert [one.fault for one in reward.judge(GROUP)] == ["timeout"] * 3
    other = Group(completions=["b"], tokens=[[1]], finished=[True], columns=GROUP.columns)
    assert [one.score for one in reward.judge(other)] == [1.0]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("absent.reward", "No module named 'absent'"),
        ("mine.absent", "there is no such object"),
        ("mine.not_a_function", "3 is not a callable object"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(make: Callable[..., Function], path: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"A reward does not start: {path}.*{says}"):
        Function(path, deadline=1)
