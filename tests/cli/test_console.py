"""What is printed: completions cannot command a terminal, and tables stay readable when it is narrow."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from posttrain.cli.console import ProgressView, completions_table, evaluation_table

SAMPLE = {"prompt": "1+1=", "completion": "2", "reward": 1.0, "graded": True, "tokens": 2, "finish": "stop"}


def printed(what: Any, width: int = 120) -> str:
    out = StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue()


@pytest.mark.parametrize("hostile", ["\x1b[2J\x1b]0;owned\x07", "a\x9b31mb", "x\u202egnp.exe", "[bold red]markup[/]", "\x00"])
def test_a_completion_cannot_command_the_terminal(hostile: str) -> None:
    text = printed(completions_table(3, [{**SAMPLE, "completion": hostile, "prompt": hostile}]))
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "markup" not in hostile or "[bold red]markup[/]" in text


def test_what_was_not_graded_or_was_cut_off_says_so() -> None:
    text = printed(completions_table(1, [{**SAMPLE, "graded": False, "finish": "length"}]))
    assert "not graded" in text and "2, cut off" in text


def test_the_names_of_metrics_survive_a_narrow_terminal() -> None:
    points = {
        name: {"eval/held_out/pass@1": 0.5, "eval/held_out/pass@1/low": 0.4, "eval/held_out/pass@1/high": 0.6}
        for name in "abcd"
    }
    assert "held_out/pass@1" in printed(evaluation_table(points), width=60)


def test_each_stage_has_its_own_pace_of_completions() -> None:
    out = StringIO()
    view = ProgressView(Console(file=out, width=100), 9, {"quiet": 0, "chatty": 2})
    for stage in ("quiet", "chatty"):
        view.on_stage(stage, 1, 2)
        view.on_start(0, 4)
        for step in range(1, 5):
            view.on_rollouts(step, [SAMPLE])
    assert [f"Rollouts of step {step}" in out.getvalue().partition("chatty")[2] for step in range(1, 5)] == [True, False] * 2
    assert "Rollouts" not in out.getvalue().partition("chatty")[0]


def test_an_evaluation_is_a_table_on_a_terminal_and_a_line_for_each_set_elsewhere() -> None:
    metrics = {
        **{f"eval/{name}/pass@1": 0.5 for name in ("near", "far")},
        **{f"eval/{name}/pass@1/{end}": value for name in ("near", "far") for end, value in (("low", 0.4), ("high", 0.6))},
        "eval/near/loss": 1.25,
        "eval/near/loss/sft": 1.25,
    }
    plain, screen = StringIO(), StringIO()
    ProgressView(Console(file=plain, width=50)).on_evaluation(7, metrics)
    assert plain.getvalue().splitlines() == [
        "evaluation at step 7, near: pass@1 0.5 [0.4, 0.6]  loss 1.25",
        "evaluation at step 7, far: pass@1 0.5 [0.4, 0.6]",
    ]
    ProgressView(Console(file=screen, width=80, force_terminal=True)).on_evaluation(7, metrics)
    assert "Evaluation at step 7" in screen.getvalue() and "near" in screen.getvalue() and "loss/sft" not in screen.getvalue()


def test_the_completions_of_several_questions_are_shown() -> None:
    samples = [{**SAMPLE, "where": f"q:{i}", "prompt": f"{i}+{i}="} for i in range(4) for _ in range(4)]
    text = printed(completions_table(1, samples))
    assert [text.count(f"{i}+{i}=") for i in range(4)] == [2, 2, 2, 0]
    assert printed(completions_table(1, samples[:4])).count("0+0=") == 4
