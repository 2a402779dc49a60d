"""A bfloat16 recipe of fifty steps at 1e-6 on two ranks moves the weights that float32 training on one moves, and the same
way, in every mode; as it was before, without float32 masters, it hardly moves them.

All of a mode happens in one launch of move_everywhere.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from system.move_everywhere import flat, trained
from system.processes import environment
from tiny import TINY

HERE = Path(__file__).parent
pytestmark = pytest.mark.system
TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
WHOLE = ("float32", "bfloat16", "before")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("masters") / "start"
    model, tokenizer = load(ModelConfig(from_scratch=TINY, tokenizer="characters"), seed=0)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(start: Path) -> np.ndarray:
    """In float32, here."""
    changes, _ = trained(start, start.parent / "plain", dtype="float32", compute="float32")
    return flat(changes)


@pytest.fixture(scope="module", params=["ddp", "fsdp2", "zero2"])
def two(request: pytest.FixtureRequest, start: Path) -> tuple[str, dict[str, np.ndarray], dict[str, Any]]:
    target = start.parent / f"{request.param}.npz"
    command = [sys.executable, *TWO, str(HERE / "move_everywhere.py"), str(start), str(target), request.param]
    done = subprocess.run(command, env=environment(PYTHONPATH=str(HERE.parent)), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return request.param, dict(np.load(target)), json.loads(target.with_suffix(".json").read_text())


def compared(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Of the numbers that move in one the share that moves in the other, and the cosine of the movements."""
    return float((other[one != 0] != 0).mean()), float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_two_ranks_move_what_float32_moves(
    compute: str, plain: np.ndarray, two: tuple[str, dict[str, np.ndarray], dict[str, Any]]
) -> None:
    assert (plain != 0).mean() > 0.5
    share, cosine = compared(plain, two[1][compute])
    assert share >= 0.99 and cosine >= 0.999


def test_without_masters_most_would_stay(plain: np.ndarray, two: tuple[str, dict[str, np.ndarray], dict[str, Any]]) -> None:
    mode, moved, _ = two
    share, cosine = compared(plain, moved["before"])
    assert (share >= 0.99 and cosine >= 0.999) if mode == "zero2" else (share < 0.5 and cosine < 0.9)  # it has its own


def test_what_is_saved_is_in_the_dtype_and_an_adapter_in_float32(
    two: tuple[str, dict[str, np.ndarray], dict[str, Any]],
) -> None:
    mode, _, saved = two
    assert {name: [*saved[name].values()] for name in WHOLE} == {name: ["torch.bfloat16"] for name in WHOLE}
    own = "torch.bfloat16" if mode == "zero2" else "torch.float32"  # which DeepSpeed has cast
    assert sorted(saved["adapter"].values()) == sorted(["torch.bfloat16", own])


def test_policy_and_reference_are_one_at_the_start(two: tuple[str, dict[str, np.ndarray], dict[str, Any]]) -> None:
    assert two[2]["first loss of DPO"] == pytest.approx(math.log(2), abs=1e-7)
