"""`posttrain eval` samples as rollouts do, and asks what a conversation asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from recipes import SCRATCH, Command, write

TALK = [
    {"role": "user", "content": "What is 1+1?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "And 2+2?"},
    {"role": "assistant", "content": "It is 4"},
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model, tokenizer = load(ModelConfig.model_validate(SCRATCH), seed=0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def answers(posttrain: Command, saved: Path, *options: str) -> list[dict[str, Any]]:
    rows = write(Path("talk.jsonl"), {"messages": TALK})
    code, _, err = posttrain("eval", str(saved), "--data", rows, "--samples", "4", "--max-tokens", "12", *options)
    assert code == 0, err
    return [json.loads(line) for line in Path("eval-answers.jsonl").read_text().splitlines()]


def test_a_conversation_is_asked_up_to_its_last_answer_which_is_the_reference(posttrain: Command, saved: Path) -> None:
    asked = answers(posttrain, saved)
    assert {(row["prompt"], row["reference"]) for row in asked} == {
        ("user: What is 1+1?\nassistant: 2\nuser: And 2+2?", "It is 4")
    }


def test_top_k_and_stop_are_those_of_a_rollout(posttrain: Command, saved: Path) -> None:
    """One token to choose from gives one answer at any temperature; a text that is in it ends it there."""
    free = answers(posttrain, saved, "--temperature", "5")
    fixed = answers(posttrain, saved, "--temperature", "5", "--top-k", "1")
    assert len({row["completion"] for row in free}) == 4 and len({row["completion"] for row in fixed}) == 1
    assert {(row["tokens"], row["finish"]) for row in fixed} == {(12, "length")}
    letter = next(sign for sign in fixed[0]["completion"] if sign.isascii() and sign.isprintable())
    place = fixed[0]["completion"].index(letter)
    stopped = answers(posttrain, saved, "--temperature", "5", "--top-k", "1", "--stop", letter)
    assert {row["finish"] for row in stopped} == {"stop"} and all(row["tokens"] < 12 or place == 11 for row in stopped)
    assert {row["completion"].removesuffix(letter) for row in stopped} == {fixed[0]["completion"][:place]}
    line = json.loads(Path("eval.jsonl").read_text().splitlines()[-1])
    assert (line["stop"], line["top_k"], line["eval/cut_off"]) == ([letter], 1, 0.0)
