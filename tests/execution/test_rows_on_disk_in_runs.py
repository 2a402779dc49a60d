"""Runs over rows that lie on disk are those over rows in memory, and go on from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.execution.prepare.data import kept
from recipes import Command, recipe, write

TRAINING = {"rows_per_step": 4, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "save_every": 2}


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "kept"))
    pairs = [{"prompt": f"{i} + 1 =", "chosen": f"{i + 1}", "rejected": f"{i - 1}!"} for i in range(10, 20)]
    write(Path("rows.jsonl"), *({**one, "completion": one["chosen"]} for one in pairs))
    write(Path("texts.jsonl"), *({"text": f"{i} is not {i + 1}. " * (1 + i % 3)} for i in range(8)))


def steps(folder: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def test_a_run_in_memory_goes_on_with_its_rows_on_disk(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = {"mix": {"rows": {"path": "rows.jsonl", "unused": ["chosen", "rejected"]}, "texts": {"path": "texts.jsonl"}}}
    values = {"data": {"train": mix, "chat_template": False}}
    assert posttrain("run", recipe(**values, training={**TRAINING, "max_steps": 6}), "--output-dir", "whole")[0] == 0
    assert posttrain("run", recipe(**values, training={**TRAINING, "max_steps": 2}))[0] == 0
    assert not Path("kept").exists()
    monkeypatch.setattr(kept, "IN_MEMORY", 0)
    code, _, err = posttrain("run", recipe(**values, training={**TRAINING, "max_steps": 6}))
    assert code == 0 and "rows-on-disk" in Path("out/warnings.jsonl").read_text(), err
    assert steps("out") == steps("whole") and len(steps("out")) == 6
    assert (Path("out/final/model.safetensors")).read_bytes() == Path("whole/final/model.safetensors").read_bytes()


def test_pairs_on_disk_that_are_read_twice_are_compared_as_those_in_memory(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {"train": {"path": "rows.jsonl", "unused": ["completion"]}, "chat_template": False}
    values = {"algorithm": {"name": "dpo"}, "data": data, "training": {**TRAINING, "max_steps": 5}}
    assert posttrain("run", recipe(**values), "--output-dir", "memory")[0] == 0
    monkeypatch.setattr(kept, "IN_MEMORY", 0)
    assert posttrain("run", recipe(**values), "--output-dir", "disk")[0] == 0
    assert len(list(Path("kept/posttrain").glob("*/rows"))) == 1
    for one, other in zip(steps("memory"), steps("disk"), strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
