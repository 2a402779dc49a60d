"""A study over a sequence of tasks, by its command: trained, merged, broken off and gone on with."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from execution.study.sequences import SEQUENCE
from recipes import in_cells

pytestmark = pytest.mark.system


def command(*arguments: str, here: Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "posttrain", *arguments], cwd=here, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_sequence_is_trained_merged_measured_and_gone_on_with(tmp_path: Path) -> None:
    made: dict[str, Any] = deepcopy(SEQUENCE)
    made["starts"] = {"young": {"algorithm": {"name": "sft"}, "data": {"train": {"task": "chain", "rows": 16}}}}
    made["tuning"]["learning_rates"] = [1e-2]
    made["recipe"]["data"]["eval"] |= {"val": {"task": "chain", "split": "validation", "rows": 8}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(made))
    code, out, err = command("compare", "study.yaml", here=tmp_path)
    assert code == 0 and "| replay | three |" in out and "new, above the line of sft" in out, err
    table, run = (tmp_path / "study/table.md").read_text(), tmp_path / "study/runs/young/replay/seed-0"
    [result] = [
        one
        for one in json.loads((tmp_path / "study/results.json").read_text())
        if one["algorithm"] == "replay" and one["seed"] == 0
    ]
    assert result["drift"]["kl_per_answer"] > 0 and list(result["line"]) == ["0.5"]

    middle = load_file(run / "anchor/1-alpha-0.5/final/model.safetensors")
    before, last = (load_file(run / place / "model.safetensors") for place in ("2-two/final", "final"))
    for name, tensor in middle.items():
        assert torch.equal(tensor, (0.5 * before[name].double() + 0.5 * last[name].double()).float())

    code, out, err = command(
        "compare", str(run), "--tasks", "one=one,two=second,three=third", "--general", "other", here=tmp_path
    )
    assert code == 0, err
    for name, value in result["measures"].items():
        assert f"{name} {value:.4g} " in in_cells(out)

    shutil.rmtree(run / "anchor/1-alpha-0.5/final")  # as one that was ended while its line was evaluated
    shutil.rmtree(run / "anchor/final")
    known = tmp_path / "study/outcomes.jsonl"
    known.write_text("".join(line for line in known.read_text().splitlines(keepends=True) if "replay/seed-0" not in line))
    trained = (run / "3-three/metrics.jsonl").stat().st_mtime_ns
    code, out, err = command("compare", "study.yaml", here=tmp_path)
    assert code == 0 and "runs: 1 of 1" in out + err and (run / "anchor/final").is_dir(), err
    assert (tmp_path / "study/table.md").read_text() == table
    assert (run / "3-three/metrics.jsonl").stat().st_mtime_ns == trained
