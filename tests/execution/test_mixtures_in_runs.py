"""Runs over several sources: their shares and losses in the metrics, and rows of earlier stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recipes import Command, only_warnings, recipe, write

CHAIN = {"task": "chain", "rows": 32}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lines(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path("out") / folder / "metrics.jsonl").read_text().splitlines()]


def test_texts_and_a_task_are_mixed_in_phases_and_come_back_in_the_next_stage(posttrain: Command) -> None:
    write(Path("texts.jsonl"), *({"text": f"{i}+{i}={2 * i}"} for i in range(10, 20)))
    mixed = {"mix": {"texts": {"path": "texts.jsonl"}, "chain": {**CHAIN, "weight": 3}}}
    phased = {**mixed, "phases": [{"until": 0.5}, {"weights": {"texts": 1}}]}
    stages = [
        {"name": "mixed", "data": {"train": phased}},
        {"name": "again", "data": {"train": CHAIN, "replay": {"share": 0.25, "buffer": 6}}},
    ]
    training = {"max_steps": 2, "rows_per_step": 8}
    code, _, err = posttrain("run", recipe(data={"train": CHAIN}, training=training, stages=stages))
    assert code == 0 and only_warnings(err), err
    first, second = lines("1-mixed")
    assert (first["data/share/texts"], first["data/share/chain"]) == (0.25, 0.75)
    assert (second["data/share/texts"], second["data/share/chain"]) == (1.0, 0.0)
    assert min(first["nll/texts"], first["nll/chain"]) < first["nll"] < max(first["nll/texts"], first["nll/chain"])
    assert second["nll/texts"] == pytest.approx(second["nll"]) and "nll/chain" not in second
    assert first["data/train/texts/rows"] == 10 and first["data/train/chain/rows"] == 32
    for line in lines("2-again"):
        assert (line["data/share/train"], line["data/share/replay"]) == (0.75, 0.25)
    assert lines("2-again")[0]["data/train/replay/rows"] == 6


def test_questions_of_two_sources_are_asked_by_their_shares(posttrain: Command) -> None:
    values = {
        "algorithm": {"name": "grpo"},
        "data": {"train": {"mix": {"easy": {**CHAIN, "weight": 3}, "hard": {**CHAIN, "hard": 1.0}}}},
        "rollout": {"questions_per_step": 4, "n": 2, "max_tokens": 4},
        "training": {"max_steps": 2},
    }
    code, _, err = posttrain("run", recipe(**values))
    assert code == 0 and only_warnings(err), err
    assert [(line["data/share/easy"], line["data/share/hard"]) for line in lines("")] == [(0.75, 0.25)] * 2
    assert not any(name.startswith("nll/") for name in lines("")[0])
