"""Runs of the command that play before training: what they train on, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collected import GUESS, collecting, lines, trained
from recipes import Command, in_cells


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_trained_on_is_in_the_file_and_others_words_have_no_loss(posttrain: Command) -> None:
    path = collecting({"rejection_sampling": {"k": 16, "max_tokens": 6}})
    code, plan, err = posttrain("run", path, "--dry-run")
    assert code == 0 and "16 episodes of the start model to each" in in_cells(plan), err
    first = trained(posttrain, path, "out")
    played = lines("out/collected.jsonl")
    assert len(played) == 12 == first["data/collect/questions"]
    for row in played:
        for one in row["episodes"]:
            assert len(one["ids"]) == len(one["mask"]) and sum(one["mask"]) == sum(turn["tokens"] for turn in one["turns"])
            assert one["right"] == one["turns"][-1]["info"]["correct"]
    kept = [next((one for one in row["episodes"] if one["right"] and one["whole"]), None) for row in played]
    learnt = [one for one in kept if one is not None]
    assert first["data/collect/rows"] == len(learnt) > 4 and first["data/collect/unsolved"] == 12 - len(learnt) > 0
    assert any(0 in one["mask"] for one in learnt)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no episodes": (
        {"collect": {"relabel": {"k": 2, "max_tokens": 6}}, "environment": None},
        "data.collect.relabel: it is made of episodes, and there is no environment",
    ),
    "no goal": ({"collect": {"relabel": {"k": 2, "max_tokens": 6}}}, "the environment guess does not say which goal"),
    "text": ({"collect": {"generate": {"max_tokens": 6}}}, "data.collect: data.collect.generate"),
    "steps": (
        {"collect": [{"rif": {"max_tokens": 6}}, {"rejection_sampling": {"max_tokens": 6}}]},
        "episodes are trained on by the ids",
    ),
    "rounds": (
        {"collect": {"rejection_sampling": {"max_tokens": 6}}, "rounds": {"times": 2, "data": "accumulate"}},
        "rounds.data: accumulate makes rows of text",
    ),
    "a turn that is longer than an episode": (
        {"collect": {"rejection_sampling": {"max_tokens": 1}}},
        "environment.turn_tokens: 2 of a turn are more than data.collect.rejection_sampling.max_tokens, 1",
    ),
    "no pairs": ({"collect": {"pairs": {"max_tokens": 6}}}, "data.collect.pairs: sft does not learn from pairs"),
    "pairs alone": (
        {"collect": {"rejection_sampling": {"max_tokens": 6}}, "algorithm": {"name": "dpo"}},
        "rejection_sampling makes demonstrations, and dpo takes none",
    ),
    "rollouts": (
        {
            "collect": {"feedback": {"max_tokens": 6}},
            "algorithm": {"name": "grpo"},
            "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 6},
            "training": {"max_steps": 2},
        },
        "feedback makes demonstrations, and grpo takes none",
    ),
    "signs": ({"collect": {"feedback": {"max_tokens": 6, "right": "+", "wrong": "+"}}}, "right and wrong are both '+'"),
    "a value": ({"collect": {"value": {"max_tokens": 6}}}, "data.collect.value: it is what a question is worth"),
    "nothing": ({"collect": None}, "nothing is played: add rollout, data.collect, or eval.samples"),
    "tasks": (
        {"collect": None, "eval": {"samples": 1, "max_tokens": 6}},
        "data.train: tasks of an environment are no rows to learn from",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_go_together_is_refused(posttrain: Command, what: str) -> None:
    changes, says = WRONG[what]
    code, _, err = posttrain("run", collecting(**{"environment": GUESS, **changes}), "--dry-run")
    assert code == 2 and says in err, err
