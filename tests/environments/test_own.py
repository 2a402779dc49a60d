"""Environments of the user's code, in processes of their own: what one does wrong costs its own episode."""

from __future__ import annotations

import json
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest

from environments.hostile import HOSTILE
from posttrain.environments.base import Start, Step, Turn
from posttrain.environments.isolated.own import Hosts, of_class
from posttrain.environments.kinds.class_ import ClassEnvironment
from posttrain.environments.sessions import Failure, Sessions
from posttrain.errors import SetupError
from recipes import SCRATCH, Command, recipe

FILE = Path(__file__).with_name("hostile.py")
EPISODES, TURNS = 6, 3


def sessions(of: str, *, deadline: float = 30.0, **options: Any) -> Sessions:
    """Over one process, so that all episodes share it."""
    hosts = Hosts(of_class(f"{FILE}:{of}", options), processes=1, deadline=deadline)
    return Sessions(hosts, deadline=deadline, concurrency=4)


def played(working: Sessions) -> list[list[Any]]:
    """What each of the episodes is said in its turns, up to a failure."""
    opened = working.reset([({"number": i}, 0) for i in range(EPISODES)])
    said: list[list[Any]] = [[start] for _, start in opened]
    for _ in range(TURNS):
        alive = [i for i in range(EPISODES) if not isinstance(said[i][-1], Failure)]
        steps = working.step([(one, Turn("go")) for i in alive if (one := opened[i][0]) is not None])
        for i, step in zip(alive, steps, strict=True):
            said[i].append(step)
    working.end([one for one, _ in opened if one is not None])
    working.close()
    return said


@cache
def played_by_counts() -> list[list[Any]]:
    return played(sessions("Counts"))


def test_episodes_in_one_process_do_not_see_each_other() -> None:
    for i, (start, *steps) in enumerate(played(sessions("Counts", word="stop"))):
        assert start == Start(({"role": "user", "content": f"Row {i}."},))
        expected = [
            Step(({"role": "user", "content": f"{i}/{k}"},), 0.0, info={"correct": False}) for k in range(1, TURNS + 1)
        ]
        assert steps == expected


@pytest.mark.parametrize("does", HOSTILE)
def test_what_one_does_wrong_costs_its_own_episode(does: str) -> None:
    """The others go on in another process from where they were, and nothing is left of the first one."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    threads = threading.active_count()
    usual, found = played_by_counts(), played(sessions("Hostile", does=does, deadline=0.5))
    failure = found[3][-1]
    assert isinstance(failure, Failure) and len(found[3]) == 3, found[3]
    assert failure.end == ("deadline" if does in ("hangs", "computes without end", "prints without end") else "fault")
    assert [one for i, one in enumerate(found) if i != 3] == [one for i, one in enumerate(usual) if i != 3]
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert all(child.status() == psutil.STATUS_ZOMBIE for child in left) and threading.active_count() <= threads + 8


def test_one_may_say_which_goal_was_reached() -> None:
    with sessions("Counts") as counts, sessions("Forgetful") as forgetful:
        assert counts.relabel([({"number": 1}, [{"correct": False}] * 3), ({}, [])]) == [{"number": 3}, None]
        [found] = forgetful.relabel([({}, [])])
    assert isinstance(found, Failure) and "it has no method relabel" in found.reason


def test_one_that_is_no_function_of_its_row_is_told() -> None:
    found = played(sessions("Forgetful"))
    reasons = [one[-1].reason for one in found if isinstance(one[-1], Failure)]
    assert "its process died: it ended" in reasons
    assert any("it is no function of its row and seed" in reason for reason in reasons)


def test_a_class_that_is_none_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("class Half:\n    def reset(self): ...\n")
    for path, says in (
        (f"{tmp_path}/own.py:Half", "has no method step"),
        (f"{tmp_path}/own.py:None_", "there is no such object"),
        (f"{FILE}:Counts", "options: "),
    ):
        with pytest.raises(SetupError, match=says):
            Hosts(of_class(path, {"unknown": 1}), processes=1, deadline=1.0)


def test_a_recipe_names_one_and_may_only_with_leave(
    posttrain: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"name": "class", "path": f"{FILE}:Counts", "options": {"word": "7"}, "max_turns": 2, "turn_tokens": 2}
    path = recipe(
        model={**SCRATCH, "tokenizer": {"characters": "0123456789/Row ."}},
        environment=named,
        algorithm={"name": "grpo", "kl_coef": 0},
        data={"chat_template": False, "train": {"environment": {"rows": 4}}},
        rollout={"questions_per_step": 2, "n": 4, "max_tokens": 4, "log_completions": 1},
        training={"max_steps": 1},
    )
    assert posttrain("run", path)[0] == 2
    code, _, err = posttrain("validate", path, "--allow-code", "--set", f"environment.path={FILE}:Nobody")
    assert code == 4 and "there is no such object" in err
    code, _, err = posttrain("run", path, "--allow-code")
    assert code == 0, err
    [first, *_] = (json.loads(line) for line in Path("out/completions/step-000001.jsonl").read_text().splitlines())
    assert first["prompt"].startswith("Row ") and 1 <= len(first["turns"]) <= 2
    assert ClassEnvironment(**named).label == "Counts"


@pytest.fixture(autouse=True)
def with_tests_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = str(FILE.parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")]))
