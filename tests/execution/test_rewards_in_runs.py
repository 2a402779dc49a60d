"""Rewards in whole runs: code only with leave, failing grades, data without labels."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import SetupError
from posttrain.recipe.recipe import load_recipe
from posttrain.rewards.make import make_rewards, named
from posttrain.rewards.options import Judged
from posttrain.settings.data import TaskSource
from recipes import Command, only_warnings, recipe, write

MODULE = """
    import zlib
    calls = 0

    def some_fail(completions, **_):
        return [float("nan") if zlib.crc32(c.encode()) % 10 == 0 else float(len(c)) for c in completions]

    def all_fail(completions, **_):
        return [float("nan")] * len(completions)

    def of_gold(completions, gold):
        return [1.0] * len(completions)

    def task(completions, **_):
        return [float(len(c)) for c in completions]

    def remainder(completions, **_):
        return [float(zlib.crc32(c.encode()) % 2) for c in completions]

    def is_even(completions, **_):
        return [float(zlib.crc32(c.encode()) % 2 == 0) for c in completions]

    def breaks(completions, **_):
        global calls
        calls += 1
        return [float("nan") if calls > 12 else float(len(c)) for c in completions]
"""


def grpo(*rewards: dict[str, Any], **changes: Any) -> str:
    return recipe(
        **{
            "algorithm": {"name": "grpo"},
            "rollout": {"questions_per_step": 4, "n": 4, "max_tokens": 6, "log_completions": 0},
            "training": {"max_steps": 6, "save_every": 1},
            "rewards": list(rewards),
            **changes,
        }
    )


def metrics() -> list[dict[str, float]]:
    return [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(textwrap.dedent(MODULE))


def test_code_runs_only_with_leave(posttrain: Command) -> None:
    path = grpo({"name": "function", "path": "mine.some_fail"})
    for arguments in ([], ["--dry-run"]):
        code, _, err = posttrain("run", path, *arguments)
        assert code == 2 and "The recipe runs code: mine.some_fail" in err and "--allow-code" in err
    assert not Path("out").exists()
    assert posttrain("validate", path)[0] == 0


def test_a_function_that_is_not_there_leaves_nothing(posttrain: Command) -> None:
    code, _, err = posttrain("run", grpo({"name": "function", "path": "mine.absent"}), "--allow-code")
    assert code == 4 and "A reward does not start: mine.absent: there is no such object" in err and not Path("out").exists()


def test_a_run_goes_on_with_a_tenth_of_its_grades_failing(posttrain: Command) -> None:
    code, _, err = posttrain("run", grpo({"name": "function", "path": "mine.some_fail"}), "--allow-code")
    assert code == 0 and only_warnings(err)
    failed = [step["rollout/failed_grades"] for step in metrics()]
    assert len(failed) == 6 and 0.02 < sum(failed) / 6 < 0.2
    assert all(step["reward/mean"] == pytest.approx(step["reward/some_fail"]) for step in metrics())


def test_a_run_whose_grades_all_fail_ends(posttrain: Command) -> None:
    code, _, err = posttrain("run", grpo({"name": "function", "path": "mine.all_fail"}), "--allow-code")
    assert code == 7 and re.search(r"The reward all_fail failed on (\d+) of the last \1 completions.*: \1 × gave nan", err)
    assert "The same command resumes from the last checkpoint, if there is one." in err
    assert "Traceback" not in err and not Path("out/final").exists()


def test_a_parameter_that_is_no_column_is_named(posttrain: Command) -> None:
    code, _, err = posttrain("run", grpo({"name": "function", "path": "mine.of_gold"}), "--allow-code")
    assert code == 7 and "needs the parameter gold, which is no column; there are" in err and "answer" in err


def test_a_function_may_be_called_task(posttrain: Command) -> None:
    prompts = write(Path("prompts.jsonl"), *({"prompt": f"{i}+{i}="} for i in range(8)))
    path = grpo({"name": "function", "path": "mine.task"}, data={"train": {"path": prompts}})
    assert posttrain("run", path, "--allow-code")[::2] == (0, "")


def test_a_cache_as_long_as_the_completions_is_refused(posttrain: Command) -> None:
    code, _, err = posttrain("run", grpo({"name": "overlong", "cache": 6}))
    assert code == 2 and "rewards: overlong: cache: 6 is not below rollout.max_tokens: 6" in err


def test_a_run_is_evaluated_by_the_verdict_of_its_rewards(posttrain: Command) -> None:
    rows = write(Path("rows.jsonl"), {"prompt": "1+1=", "answer": "2"})
    assert posttrain("run", grpo({"name": "length"}, {"name": "exact_match"}))[0] == 0
    for options in ([], ["--grader", "math_verify"]):
        code, _, err = posttrain("eval", "out", "--data", rows, "--max-tokens", "4", "--reads-cut-off", *options)
        assert code == 0 and only_warnings(err)
    code, out, err = posttrain("eval", "out", "--data", rows, "--max-tokens", "1", "--temperature", "0")
    assert code == 0 and "4 answers were cut off" in out and "cut off at max_tokens 1: they have no answer" in err
    assert posttrain("run", grpo({"name": "length"}, output_dir="alone"))[0] == 0
    assert posttrain("eval", "alone", "--data", rows, "--max-tokens", "4")[0] == 0


def started() -> set[int]:
    """Processes that this one has started."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for path in children for pid in path.read_text().split()}


def test_what_was_started_is_ended_where_a_later_reward_does_not_start() -> None:
    before = started()
    rewards = load_recipe(grpo({"name": "math_verify"}, {"name": "function", "path": "mine.absent"})).rewards
    with pytest.raises(SetupError, match="A reward does not start: mine"):
        make_rewards(rewards, Judged(TaskSource(task="chain", rows=8), max_tokens=6))
    assert started() == before


def test_a_functions_own_deadline_comes_first() -> None:
    rewards = load_recipe(grpo({"name": "function", "path": "mine.task", "deadline": 900})).rewards
    [entry] = make_rewards(rewards, Judged(TaskSource(task="chain", rows=8), max_tokens=6))
    entry.reward.close()
    assert entry.deadline > 900


def test_a_reward_that_breaks_in_the_middle_leaves_a_checkpoint_to_go_on_from(posttrain: Command) -> None:
    path = grpo({"name": "function", "path": "mine.breaks"})
    code, _, err = posttrain("run", path, "--allow-code")
    assert code == 7 and "The same command resumes" in err
    assert Path("out/checkpoint-4").is_dir() and [step["rollout/ungraded"] for step in metrics()] == [0, 0, 0, 1]
    code, _, err = posttrain("run", path, "--allow-code")
    assert code == 0 and only_warnings(err) and [step["step"] for step in metrics()] == list(range(1, 7))


@pytest.mark.parametrize(
    "reward",
    [
        {"name": "format_length", "form": "pattern", "pattern": "[0-9]*#[0-9]", "peak": 0.4},
        {"name": "majority_vote", "reads": "exact_match", "reads_cut_off": True},
        {"name": "length", "shape": "polyline"},
        {"name": "repetition", "n": 2},
        {"name": "overlong"},
        {"name": "format", "form": "tags"},
    ],
    ids=lambda reward: reward["name"],
)
def test_rewards_without_labels_train_on_prompts_alone(posttrain: Command, reward: dict[str, Any]) -> None:
    prompts = write(Path("prompts.jsonl"), *({"prompt": f"{i}+{i}="} for i in range(8)))
    tokens = 1 if reward["name"] == "majority_vote" else 6  # of an untrained model, only short answers agree
    rollout = {"questions_per_step": 4, "n": 4, "max_tokens": tokens, "log_completions": 0}
    code, _, err = posttrain("run", grpo(reward, data={"train": {"path": prompts}}, rollout=rollout))
    assert code == 0 and only_warnings(err)
    assert all(step["rollout/failed_grades"] == 0 for step in metrics())
    assert any(f"reward/{reward['name']}" in step for step in metrics())
    assert all((f"reward/{reward['name']}" in step) == (step["rollout/ungraded"] < 1) for step in metrics())
    code, _, err = posttrain("run", grpo({"name": "exact_match"}, data={"train": {"path": prompts}}, output_dir="other"))
    assert (
        code == 3
        and "the columns prompt + answer or prompt + calls or prompt + solution are needed; the row has prompt" in err
    )


def test_countdown_reads_its_columns(posttrain: Command) -> None:
    rows = write(Path("rows.jsonl"), *({"prompt": f"make {i}", "nums": [1, i], "target": 1 + i} for i in range(8)))
    code, _, err = posttrain("run", grpo({"name": "countdown"}, data={"train": {"path": rows}}))
    assert code == 0 and only_warnings(err) and all("rollout/correct" in step for step in metrics())
    bad = write(Path("bad.jsonl"), {"prompt": "make 1", "nums": None, "target": 1})
    code, _, err = posttrain("run", grpo({"name": "countdown"}, data={"train": {"path": bad}}, output_dir="other"))
    assert code == 3 and "bad.jsonl:1: nums is missing" in err


def test_a_watching_verdict_shows_the_gap_and_changes_nothing(posttrain: Command) -> None:
    watched = [{"name": "length"}, {"name": "exact_match", "weight": 0.0}]
    assert posttrain("run", grpo(*watched))[0] == 0
    assert posttrain("run", grpo(watched[0], output_dir="alone"))[0] == 0
    assert all("rollout/correct" in step for step in metrics())
    assert any(0 < step.get("rollout/most_common_answer", 0) <= 1 for step in metrics())
    alone = [json.loads(line) for line in Path("alone/metrics.jsonl").read_text().splitlines()]
    assert [step["loss"] for step in alone] == [step["loss"] for step in metrics()]


def test_the_gap_between_right_and_wrong_is_of_the_reward_that_trains(posttrain: Command) -> None:
    verdict = {"name": "function", "path": "mine.is_even", "weight": 0.0, "verdict": True}
    assert posttrain("run", grpo({"name": "function", "path": "mine.remainder"}, verdict), "--allow-code")[0] == 0
    mixed = [step for step in metrics() if 0 < step["rollout/correct"] < 1]
    assert mixed and all(("reward/right_minus_wrong" in step) == (step in mixed) for step in metrics())
    assert all(step["reward/right_minus_wrong"] == pytest.approx(-1.0) for step in mixed)


def test_the_first_reward_that_can_gives_the_verdict() -> None:
    def verdicts(*rewards: dict[str, Any]) -> list[bool]:
        made = load_recipe(grpo(*rewards))
        read, judged = made.rewards, Judged(made.data.train, 6)
        assert not read or named(read, judged) == read  # the resolved recipe shows it
        return [one.verdict for one in named(read, judged)]

    assert verdicts({"name": "length"}, {"name": "task"}, {"name": "majority_vote"}) == [False, True, False]
    assert verdicts({"name": "task"}, {"name": "majority_vote", "verdict": True}) == [False, True]
    assert verdicts({"name": "majority_vote"}, {"name": "function", "path": "a.f"}) == [False, False]
    assert verdicts({"name": "function", "path": "a.f"}, {"name": "math_verify"}) == [False, True]
    assert verdicts({"name": "length"}) == [False]
    assert verdicts() == [True]


def test_half_a_character_in_an_answer_is_written_and_read_again(posttrain: Command) -> None:
    Path("rows.jsonl").write_text('{"prompt": "1+1=", "answer": "\\ud800"}\n')
    data = {"train": {"task": "chain", "rows": 8}, "eval": {"odd": {"path": "rows.jsonl"}}}
    code, _, err = posttrain("run", recipe(data=data, eval={"samples": 1, "max_tokens": 2, "loss": False}))
    assert code == 0, err
    [line] = Path("out/completions/eval-odd-step-000002.jsonl").read_text().splitlines()
    assert json.loads(line)["reference"] == "\ud800"
