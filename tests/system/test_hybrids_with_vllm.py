"""Rollouts beside demonstrations, or after their prefixes, sampled by real vLLM: every algorithm runs from a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
NAMES = ["hpt", "prefix_rft", "uft", "bread", "luffy", "srft", "chord", "grpo_sft", "relift"]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    command = [sys.executable, str(HERE / "run_hybrids.py"), str(tmp_path_factory.mktemp("hybrids"))]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_a_hybrid_runs_with_vllm(name: str, steps: dict[str, list[dict[str, Any]]]) -> None:
    lines = steps[name]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]  # two updates of each collection
    assert all(line["weight/demonstrations"] > 0 for line in lines if name not in ("luffy", "prefix_rft", "bread", "relift"))
    assert sum(line["weight/demonstrations"] + line["weight/rollouts"] for line in lines) > 0
    assert all(line.get("logp_diff/max", 0.0) < 1e-4 for line in lines[::2])
    if name == "prefix_rft":
        assert all(1 <= line["rollout/prefix_length"] <= 3 for line in lines[::2])
    if name == "bread":  # a question that fails has been asked again, from a head of one token at least
        assert all(line["rollout/demonstrated"] > 0 or line["rollout/unsolved_after_branches"] == 0 for line in lines[::2])
        assert any(line.get("rollout/prefix_length", 0) >= 1 for line in lines[::2])
    if name == "relift":  # after the two updates of a collection one on what it did not solve
        assert [line["train/demonstrated"] for line in lines] == [0, 0, 1, 0]
