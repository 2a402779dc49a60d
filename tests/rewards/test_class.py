"""A reward class of the user's, in a process of its own: judged there, with options, columns and a deadline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from posttrain import Group
from posttrain.errors import SetupError
from posttrain.rewards.base import Judgement
from posttrain.rewards.kinds.class_ import ClassReward, OwnClass
from posttrain.rewards.options import Judged
from posttrain.settings.data import TaskSource

MINE = """
import os, time
from posttrain import Judgement

class Longest:
    columns = ("answer",)
    def __init__(self, unit=1.0):
        self.unit, self.calls = unit, 0
    def judge(self, group):
        self.calls += 1
        most = max(map(len, group.tokens[: len(group.tokens) - group.beside]))
        return [Judgement(self.unit * len(t), right=len(t) == most, answer=group.columns["answer"]) for t in group.tokens]

class Plain:
    def judge(self, group): return [1, None, 0.5][: len(group.completions)]

class Fails:
    def judge(self, group): raise RuntimeError("no idea")

class Hangs:
    def judge(self, group): time.sleep(60)

class Dies:
    def judge(self, group): os._exit(3)

class Reads:
    def judge(self, group): return [len(str(group.columns["day"])) for _ in group.completions]

class Remembers:
    def __init__(self): self.calls = 0
    def judge(self, group):
        self.calls += 1
        return [self.calls for _ in group.completions]

class Bare: pass
class Wants:
    def __init__(self, must): pass
    def judge(self, group): return []
"""
GROUP = Group(completions=["a", "bb"], tokens=[[1], [1, 2]], finished=[True, False], columns={"prompt": "p", "answer": "x"})
Make = Callable[..., OwnClass]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    (tmp_path / "mine.py").write_text(MINE)
    started: list[OwnClass] = []

    def made(name: str, deadline: float = 20, **options: Any) -> OwnClass:
        config = ClassReward(path=f"{tmp_path}/mine.py:{name}", deadline=deadline, options=options)
        started.append(config.build(Judged(TaskSource(task="chain", rows=1), 8)))
        return started[-1]

    yield made
    for one in started:
        one.close()


def test_it_judges_with_its_options_and_names_its_columns(make: Make) -> None:
    reward = make("Longest", unit=2.0)
    assert reward.judge(GROUP) == [Judgement(2.0, False, "x"), Judgement(4.0, True, "x")]
    assert [one.right for one in reward.judge(dataclasses.replace(GROUP, beside=1))] == [True, False], "what stands beside it"
    assert (reward.name, reward.columns, make("Plain").columns) == ("Longest", ("answer",), ())


def test_scores_by_themselves_will_do_and_it_remembers_from_call_to_call(make: Make) -> None:
    assert make("Plain").judge(GROUP) == [Judgement(1.0), Judgement(None)]
    reward = make("Remembers")
    assert [reward.judge(GROUP)[0].score for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("name", "fault"), [("Fails", "raised RuntimeError: no idea"), ("Hangs", "timeout"), ("Dies", "crash")]
)
def test_what_goes_wrong_fails_the_group_and_not_the_run(make: Make, name: str, fault: str) -> None:
    assert [one.fault for one in make(name, deadline=0.5).judge(GROUP)] == [fault] * 2


def test_a_column_that_is_no_json_is_named(make: Make) -> None:
    group = Group(completions=["a"], tokens=[[1]], finished=[True], columns={"prompt": "p", "day": date(2026, 1, 1)})
    assert [one.fault for one in make("Reads").judge(group)] == [
        "cannot be given the column day: date is no JSON; turn it into text in the data"
    ]
    assert "no column; there are prompt, answer" in str(make("Reads").judge(GROUP)[0].fault)


@pytest.mark.parametrize(
    ("name", "says"), [("Bare", "no method judge"), ("Wants", "TypeError"), ("Absent", "no such object")]
)
def test_one_that_cannot_judge_does_not_start(make: Make, name: str, says: str) -> None:
    with pytest.raises(SetupError, match=f"A reward does not start: .*mine.py:{name}.*{says}"):
        make(name)


def test_options_must_be_plain() -> None:
    with pytest.raises(ValueError, match="they go to another process as JSON"):
        ClassReward(path="mine:C", options={"day": date(2026, 1, 1)})
