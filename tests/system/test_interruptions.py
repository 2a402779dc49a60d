"""Whole runs that are killed, told to end, or started twice: nothing is lost, and the same command goes on.

The policy, from scratch, learns sums by SFT with dropout; steps take 20 ms and checkpoints are made at every third.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.execution.folder.lock import LOCK
from system.processes import environment, gone

pytestmark = pytest.mark.system
STEPS = 48
TRAIN = {"task": "chain", "rows": 400}
KILLS = [(4, signal.SIGKILL, -9), (9, signal.SIGTERM, 75), (13, signal.SIGUSR1, 75), (17, signal.SIGKILL, -9)]
"""After which step, by what, and the exit code."""


def recipe(folder: Path, **changes: Any) -> None:
    values = {
        "model": {
            "from_scratch": {"hidden_size": 64, "num_attention_heads": 2, "attention_dropout": 0.1},
            "tokenizer": "characters",
        },
        "data": {"train": TRAIN, "eval": {"held_out": {"task": "chain", "split": "held_out", "rows": 16}}},
        "algorithm": {"name": "sft"},
        "training": {"max_steps": STEPS, "rows_per_step": 32, "save_every": 3, "lr_scheduler_type": "constant"},
        "eval": {"every": 4, "samples": 1, "max_tokens": 8},
        "output_dir": "out",
        **changes,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posttrain", "run", "recipe.yaml", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment(), **pipes)


def finish(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = child.communicate(timeout=180)
    return child.returncode, err


def lines(folder: Path, name: str = "metrics") -> list[dict[str, Any]]:
    path = folder / "out" / f"{name}.jsonl"
    read = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [{key: value for key, value in line.items() if "second" not in key} for line in read]


def wait_for(folder: Path, child: subprocess.Popen[str], step: int) -> None:
    end = time.monotonic() + 120
    while not (folder / "out" / LOCK).is_file() or not (steps := lines(folder)) or steps[-1]["step"] < step:
        assert child.poll() is None and time.monotonic() < end, finish(child)
        time.sleep(0.01)


def same(one: Path, other: Path) -> bool:
    weights = [
        [file.read_bytes() for file in sorted((folder / "out/final").glob("*.safetensors"))] for folder in (one, other)
    ]
    return (
        bool(weights[0])
        and weights[0] == weights[1]
        and all(lines(one, name) == lines(other, name) for name in ("metrics", "eval"))
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    recipe(folder)
    assert finish(start(folder))[0] == 0
    return folder


def test_killed_and_told_to_end_it_goes_on_as_if_never_broken_off(whole: Path, tmp_path: Path) -> None:
    recipe(tmp_path)
    for step, by, code in KILLS:
        child = start(tmp_path)
        wait_for(tmp_path, child, step)
        if by == signal.SIGTERM:
            child.send_signal(signal.SIGSTOP)  # else it may come to its end before the second has begun
            refused, err = finish(start(tmp_path))
            child.send_signal(signal.SIGCONT)
            assert refused == 8 and f"process {child.pid} on" in err
        child.send_signal(by)
        ended, err = finish(child)
        assert ended == code, err
        assert not (tmp_path / "out" / "final").exists()
        (tmp_path / "out" / LOCK).unlink(missing_ok=True)  # of one that was killed
    code, err = finish(start(tmp_path))
    assert code == 0 and same(whole, tmp_path), err
    code, err = finish(start(tmp_path))
    assert (code, err) == (0, "")


def test_two_processes_end_together_and_go_on(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"distributed": {"mode": "fsdp2", "processes": 2}, "eval": {"samples": 0}}
    for folder in (tmp_path / "whole", tmp_path / "broken"):
        recipe(folder, data={"train": TRAIN}, **changes)
    assert finish(start(tmp_path / "whole"))[0] == 0
    child = start(tmp_path / "broken")
    wait_for(tmp_path / "broken", child, 5)
    child.send_signal(signal.SIGTERM)
    code, err = finish(child)
    assert code == 75 and err.count("interrupted:") == 1 and "ended with checkpoint-" in err, err
    assert gone(child.pid, 5)
    code, err = finish(start(tmp_path / "broken"))
    assert code == 0 and same(tmp_path / "whole", tmp_path / "broken"), err
