"""Forgetting and transfer over a sequence of tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.errors import RecipeError
from posttrain.execution.study.continual.measures import Continual
from recipes import Command, in_cells

BY_HAND = (
    (0.1, 0.2, 0.0, 0.5),
    (0.8, 0.3, 0.1, 0.4),
    (0.6, 0.9, 0.3, 0.5),
    (0.5, 0.7, 1.0, 0.3),
)
"""Of three tasks and a general set: the start, and after each stage."""


def test_a_matrix_by_hand() -> None:
    found = Continual(("a", "b", "c"), ("g",), BY_HAND).metrics
    assert found == pytest.approx(
        {
            "average": (0.5 + 0.7 + 1.0) / 3,
            "forgetting": ((0.8 - 0.5) + (0.9 - 0.7)) / 2,
            "backward": ((0.5 - 0.8) + (0.7 - 0.9)) / 2,
            "forward": ((0.3 - 0.2) + (0.3 - 0.0)) / 2,
            "general": 0.3 - 0.5,
        }
    )


def test_what_becomes_better_later_is_not_forgotten() -> None:
    """Forgetting is from the best before the last stage, the start among them; backward transfer from the task's own."""
    found = Continual(("a", "b"), (), ((0.9, 0.1), (0.6, 0.2), (0.7, 0.8))).metrics
    assert found == pytest.approx({"average": 0.75, "forgetting": 0.2, "backward": 0.1, "forward": 0.1})


def test_one_task_has_neither_forgetting_nor_transfer() -> None:
    assert Continual(("a",), (), ((0.1,), (0.8,))).metrics == {"average": 0.8}


def run(folder: Path) -> Path:
    """A run of three stages, each evaluated before its first step and after its last."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text("{}")
    for number, name in enumerate("xyz", 1):
        part = folder / f"{number}-{name}"
        part.mkdir()
        lines = [
            {"step": step, **{f"eval/{one}/pass@1": value for one, value in zip("abcg", BY_HAND[at], strict=True)}}
            for step, at in ((0, number - 1), (5, number))
        ]
        (part / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_it_is_read_from_the_stages_of_a_run(tmp_path: Path) -> None:
    found = Continual.of(run(tmp_path / "run"), {"x": "a", "y": "b", "z": "c"}, ["g"])
    assert found.matrix == BY_HAND and (found.tasks, found.general) == (("a", "b", "c"), ("g",))
    for tasks, sentence in (
        ({"w": "a"}, "has no stage w; there are x, y, z"),
        ({"y": "b", "x": "a"}, "the stages run as x, y"),
        ({"x": "a", "y": "other"}, r"other/pass@1 is not in every stage's evaluation; its sets: a, b, c, g"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            Continual.of(tmp_path / "run", tasks)
    (tmp_path / "run" / "2-y" / "eval.jsonl").unlink()
    with pytest.raises(RecipeError, match="stage y has no evaluation"):
        Continual.of(tmp_path / "run", {"x": "a", "y": "b"})


def test_the_command_shows_the_matrix_and_what_follows(tmp_path: Path, posttrain: Command) -> None:
    run(tmp_path / "one")
    code, out, err = posttrain("compare", "one", "--tasks", "x=a,y=b,z=c", "--general", "g")
    assert code == 0 and "forgetting 0.25" in in_cells(out) and "after y 0.6 0.9 0.3 0.5" in in_cells(out), out + err
    for options, sentence in (
        (("--tasks", "x"), "--tasks x: STAGE=SET"),
        (("--tasks", "x=a,x=b"), "--tasks x=a,x=b: each stage once"),
        (("--tasks", "x=a,q=b"), "has no stage q"),
        (("--general", "g"), "--general g: it goes with --tasks"),
    ):
        code, _, err = posttrain("compare", "one", *options)
        assert code == 2 and sentence in err, err
