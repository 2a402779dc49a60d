"""Runs of the command with an environment: what is written, evaluated and resumed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from posttrain.algorithms import ALGORITHMS, example_values
from posttrain.environments.kinds.echo import EchoConfig
from posttrain.recipe.fits.episodes import check_played
from posttrain.train.collect.episodes.episode import Episode
from recipes import SCRATCH, Command, in_cells, recipe

GUESS = {"name": "guess", "question": "?", "max_turns": 3, "turn_tokens": 2}
MODEL = {**SCRATCH, "tokenizer": {"characters": "0123456789<>!?"}}


def guessing(**changes: Any) -> str:
    values: dict[str, Any] = {
        "model": MODEL,
        "environment": GUESS,
        "algorithm": {"name": "grpo", "kl_coef": 0},
        "data": {"chat_template": False, "train": {"environment": {"rows": 20}}},
        "rollout": {"questions_per_step": 2, "n": 4, "max_tokens": 6, "log_completions": 1},
        "training": {"max_steps": 3, "learning_rate": 1.0e-2, "save_every": 2},
    }
    return recipe(**{**values, **changes})


def rows(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_episodes_are_played_written_evaluated_and_resumed(posttrain: Command, tmp_path: Path) -> None:
    held = {"chat_template": False, "train": {"environment": {"rows": 20}}}
    held["eval"] = {"held": {"environment": {"rows": 4, "split": "held_out"}}}
    path = guessing(data=held, eval={"samples": 2, "max_tokens": 6})
    code, plan, err = posttrain("run", path, "--dry-run", "--output-dir", "planned")
    assert code == 0 and "guess: at most 3 turns, each answered by at most 512 tokens" in in_cells(plan), err
    code, seen, err = posttrain("data", path)
    assert code == 0 and "records read" in seen and "the same as a row before" not in seen, err
    code, _, err = posttrain("run", path)
    assert code == 0, err
    metrics = rows(tmp_path / "out/metrics.jsonl")
    assert all(0 < line["env/turns"] <= 3 and line["logp_diff/max"] < 1e-4 for line in metrics)
    assert all(line["reward/mean"] == line["reward/environment"] for line in metrics)
    [first, *_] = rows(tmp_path / "out/completions/step-000001.jsonl")
    assert first["prompt"] == "?" and first["end"] in ("done", "max_turns", "max_tokens")
    assert all(len(turn["text"]) <= 2 and turn["others"][0]["content"] in "<>!" for turn in first["turns"][:-1])
    played = [row for file in (tmp_path / "out/completions").glob("eval-held-*") for row in rows(file)]
    assert len(played) == 2 * 4 * 2 and all(row["verdict"] in ("right", "wrong") and row["turns"] for row in played)
    assert all("episode" not in row for row in played)
    evaluated = rows(tmp_path / "out/eval.jsonl")[-1]
    assert 1 <= evaluated["eval/held/turns"] <= 3 and 0 <= evaluated["eval/held/pass@1"] <= 1
    code, shown, _ = posttrain("show", "out", "--episode", "1")
    assert code == 0 and "tokens of its own" in shown and "user: " in shown
    assert posttrain("show", "out", "--episode", "99")[0] == 2 == posttrain("show", "grpo", "--episode", "1")[0]
    code, table, err = posttrain("eval", "out", "--data", "environment:validation", "--limit", "4", "--max-tokens", "6")
    assert code == 0 and "turns" in table and "end/max_turns" in table, err
    whole = load_file(tmp_path / "out/final/model.safetensors")
    short = posttrain("run", path, "--set", "output_dir=again", "--set", "training.max_steps=2")
    assert short[0] == 0, short
    longer = posttrain("run", path, "--set", "output_dir=again")
    assert longer[0] == 0, longer
    for name, value in load_file(tmp_path / "again/final/model.safetensors").items():
        assert np.array_equal(value.numpy(), whole[name].numpy()), name


def test_a_run_ends_whose_loss_reads_what_others_wrote(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Episode.row

    def with_others(self: Episode, filler: int) -> Any:
        ids, logprobs, own = plain(self, filler)
        return ids, logprobs, np.ones_like(own)

    monkeypatch.setattr(Episode, "row", with_others)
    code, _, err = posttrain("run", guessing())
    assert code == 6 and "engine and trainer do not read the same tokens, or what others wrote carries loss" in err


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown environment": ({"environment": {**GUESS, "name": "gess"}}, "did you mean guess?"),
    "no limit of turns": ({"environment": {"name": "guess"}}, "environment.max_turns"),
    "an option of none": ({"environment": {**GUESS, "digits": 3}}, "environment.digits"),
    "a turn that is longer than an episode": ({"environment": {**GUESS, "turn_tokens": 9}}, "environment.turn_tokens: 9"),
    "tasks of none": ({"environment": {**GUESS, "name": "echo", "question": None}}, "environment.question"),
    "tasks of one that makes none": (
        {"environment": {"name": "echo", "max_turns": 1}},
        "data.train: the environment echo makes no tasks",
    ),
    "tasks without an environment": ({"environment": None}, "it asks the environment for tasks, and there is none"),
    "tasks to be kept": (
        {"training": {"max_steps": 2, "update": [{"name": "ewc", "strength": 1, "of": {"environment": {"rows": 3}}}]}},
        "tasks of an environment are no rows to learn from",
    ),
    "an algorithm over demonstrations": (
        {"algorithm": {"name": "sft"}, "rollout": None, "training": {"max_steps": 2, "rows_per_step": 4}},
        "environment: nothing is played",
    ),
    "an algorithm with demonstrations": ({"algorithm": {"name": "hpt"}}, "environment: hpt learns from more than rollouts"),
    "a greedy baseline": ({"algorithm": {"name": "remax"}}, "environment: remax learns from more than rollouts"),
    "returns of whole answers": (
        {"environment": {**GUESS, "credit": "returns"}, "algorithm": {"name": "opo"}},
        "environment.credit: returns are of turns, and opo makes its credit of whole answers",
    ),
    "a credit that is biased": (
        {"environment": {**GUESS, "credit": "turn_index"}},
        "turn_index is biased: each turn's own pay less",
    ),
    "a discount of nothing": ({"environment": {**GUESS, "gamma": 0.9}}, "gamma: nothing is discounted"),
    "samples of before": (
        {"rollout": {"questions_per_step": 2, "n": 4, "max_tokens": 6, "replay": {"size": 8, "share": 0.5}}},
        "rollout.replay",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_go_together_is_refused(posttrain: Command, what: str) -> None:
    changes, says = WRONG[what]
    code, _, err = posttrain("validate", guessing(**changes))
    assert code == 2 and says in err, err


def test_one_turn_is_a_run_without_an_environment_also_where_it_goes_on(posttrain: Command, tmp_path: Path) -> None:
    """To the last bit."""
    values: dict[str, Any] = {
        "environment": None,
        "data": {"chat_template": False, "train": {"task": "chain", "rows": 20}},
        "model": SCRATCH,
        "rewards": [{"name": "length", "max_length": 6}],
    }
    path = guessing(**values)
    code, _, err = posttrain("run", path)
    assert code == 0, err
    echo = ("--set", "environment={name: echo, max_turns: 1}", "--set", "output_dir=echo")
    for steps in (2, 3):
        code, _, err = posttrain("run", path, *echo, "--set", f"training.max_steps={steps}")
        assert code == 0, err
    plain, played = (load_file(tmp_path / name / "final/model.safetensors") for name in ("out", "echo"))
    for name, value in plain.items():
        assert np.array_equal(value.numpy(), played[name].numpy()), name
    for one, other in zip(*(rows(tmp_path / name / "metrics.jsonl") for name in ("out", "echo")), strict=True):
        assert one["loss"] == other["loss"] and one["reward/mean"] == other["reward/mean"]


def test_turns_can_be_paid_one_by_one(posttrain: Command, tmp_path: Path) -> None:
    paid = {**GUESS, "dense": True, "credit": "returns", "gamma": 0.9}
    path = guessing(environment=paid, algorithm={"name": "dapo"}, training={"max_steps": 2, "learning_rate": 1.0e-2})
    code, plan, err = posttrain("run", path, "--dry-run", "--output-dir", "planned")
    assert code == 0 and "returns(gamma=0.9, eps=0.0001, varying=True)" in in_cells(plan), err
    code, _, err = posttrain("run", path)
    assert code == 0, err
    assert all(line["grad_norm"] > 0 for line in rows(tmp_path / "out/metrics.jsonl"))


def test_a_row_that_cannot_begin_is_told_by_its_place(posttrain: Command) -> None:
    Path("tasks.jsonl").write_text('{"number": 1}\n{"secret": "many"}\n')
    code, _, err = posttrain("run", guessing(data={"chat_template": False, "train": {"path": "tasks.jsonl"}}))
    assert code == 3 and "tasks.jsonl:1" in err and "the environment does not begin" in err and "has no split" in err


def test_a_recipe_knows_what_an_algorithm_learns_from_beside_rollouts() -> None:
    """By its config, before it is built, as by its needs."""
    for config, value in zip(ALGORITHMS, example_values(), strict=True):
        if not value.needs.rollouts:
            continue
        known = config.beside_rollouts or config.has_teacher or config.takes_demonstrations
        try:
            check_played(EchoConfig(max_turns=1), value.name, value.needs)
            assert not known, value.name
        except ValueError:
            assert known, value.name
