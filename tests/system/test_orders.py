"""Orders and steps of tokens by the command line: two ranks read and train what one does, and a run goes on as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from recipes import SCRATCH, write
from system.processes import environment

pytestmark = pytest.mark.system
RECIPE: dict[str, Any] = {
    "model": SCRATCH,
    "algorithm": {"name": "sft"},
    "data": {"train": {"path": "rows.jsonl"}, "chat_template": False, "order": {"by": "length", "rule": "ascending"}},
    "training": {"epochs": 2, "tokens_per_step": 90, "learning_rate": 1e-2, "save_every": 0},
}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_two_ranks_read_and_train_what_one_does(tmp_path: Path) -> None:
    write(tmp_path / "rows.jsonl", *({"prompt": f"{i} + 1 =", "completion": "1" * (1 + i * 7 % 30)} for i in range(21)))
    for processes in (1, 2):
        mode = {"distributed": {"mode": "ddp", "processes": 2, "timeout": 200}} if processes > 1 else {}
        (tmp_path / "recipe.yaml").write_text(
            yaml.safe_dump({**RECIPE, **mode, "output_dir": str(tmp_path / f"of_{processes}")})
        )
        command = [sys.executable, "-m", "posttrain", "run", "recipe.yaml"]
        done = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (lines(tmp_path / f"of_{processes}") for processes in (1, 2))
    assert [line["step/tokens"] for line in one] == [line["step/tokens"] for line in two]
    assert max(line["step/tokens"] for line in one) <= 90
    assert [line["nll"] for line in one] == pytest.approx([line["nll"] for line in two], rel=1e-4)
    alone, together = (load_file(tmp_path / f"of_{n}/final/model.safetensors") for n in (1, 2))
    assert all(float((value - together[name]).abs().max()) < 1e-4 for name, value in alone.items())
