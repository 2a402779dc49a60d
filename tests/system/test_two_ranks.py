"""One rank and two gloo ranks train the same parameters, for every algorithm: SGD, so that a wrong scale shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.algorithms import BUILDERS

HERE = Path(__file__).parent
pytestmark = pytest.mark.system


def _start(launcher: list[str], target: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    command = [sys.executable, *launcher, str(HERE / "train_everywhere.py"), str(target)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(np.load(target)), json.loads(target.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ranks")
    two = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [_start([], folder / "one.npz"), _start(two, folder / "two.npz")]


def test_there_really_were_two_ranks_and_unequal_numbers_of_micro_batches(trained: Any) -> None:
    (_, one), (_, two) = trained
    assert (one["world"], one["kind"]) == (1, "NO")
    assert (two["world"], two["kind"]) == (2, "MULTI_CPU")
    assert len(set(one["sft"])) > 1 and one["sft"] != two["sft"]


@pytest.mark.parametrize("name", [*BUILDERS, "grpo of two updates", "prefix_rft of two updates"])
def test_two_ranks_train_what_one_trains(name: str, trained: Any) -> None:
    (one, _), (two, _) = trained
    largest = np.abs(one[name]).max()
    assert largest > 1e-6
    assert np.abs(one[name] - two[name]).max() / largest < 1e-9
