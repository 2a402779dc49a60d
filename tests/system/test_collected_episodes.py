"""Episodes before training, by the command: of one turn they are single answers; and what else is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from collected import ECHO, GRID, collecting, lines, trained
from recipes import Command

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["rejection_sampling", "rif"])
def test_episodes_of_one_turn_are_single_answers_to_the_last_bit(posttrain: Command, name: str) -> None:
    collect = {name: {"k": 256, "max_tokens": 2}}
    ours = trained(posttrain, collecting(collect, ECHO), "ours")
    theirs = trained(posttrain, collecting(collect, None), "theirs")
    assert ours["data/collect/correct"] == theirs["data/collect/correct"] > 0 and ours["loss"] == theirs["loss"]
    found = load_file(Path("ours/final/model.safetensors"))
    for key, value in load_file(Path("theirs/final/model.safetensors")).items():
        assert np.array_equal(value.numpy(), found[key].numpy()), key


def test_failed_walks_are_learnt_as_walks_to_where_they_ended(posttrain: Command) -> None:
    plain = trained(posttrain, collecting({"rejection_sampling": {"k": 64, "max_tokens": 8}}, GRID), "plain")
    more = trained(posttrain, collecting({"relabel": {"k": 64, "max_tokens": 8}}, GRID), "more")
    assert more["data/collect/correct"] == plain["data/collect/correct"]
    assert more["data/collect/rows"] > plain["data/collect/rows"] and more["data/collect/relabelled"] > 0


def test_pairs_of_episodes_are_learnt_from(posttrain: Command) -> None:
    made = collecting({"pairs": {"k": 64, "max_tokens": 6}}, algorithm={"name": "dpo"})
    assert 0 < trained(posttrain, made, "pairs")["data/collect/rows"] <= 12


def test_a_sign_stands_before_what_an_environment_says(posttrain: Command) -> None:
    signed = {"eval": {"held": {"environment": {"rows": 2, "split": "held_out"}}}}
    signed |= {"transforms": [{"name": "control_token", "always": "+", "sets": ["train", "eval"]}]}
    collect = {"feedback": {"k": 4, "max_tokens": 6, "right": "+", "wrong": "-", "feedback": "{feedback}"}}
    first = trained(posttrain, collecting(collect, data=signed, eval={"samples": 1, "max_tokens": 6}), "texts")
    assert first["data/collect/rows"] == 48
    [asked, *_] = [row for file in Path("texts/completions").glob("eval-held-*") for row in lines(str(file))]
    assert asked["prompt"] == "+?"
