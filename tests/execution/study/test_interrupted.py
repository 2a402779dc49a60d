"""A study that a signal ends, by its command: nothing of it goes on, and the same command does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from execution.study.made import STUDY

pytestmark = pytest.mark.system


def small(folder: Path) -> list[str]:
    """A study of six runs, two at a time, as a command."""
    made: dict[str, Any] = deepcopy(STUDY)
    made |= {"starts": {"young": {"algorithm": {"name": "sft"}, "training": {"max_steps": 200}}}, "processes": 2}
    made |= {"algorithms": {"sft": {"algorithm": {"name": "sft"}}}, "output_dir": str(folder / "out")}
    made["tuning"]["learning_rates"] = [1e-3]
    made["recipe"]["training"]["save_every"] = 1000
    (folder / "study.yaml").write_text(yaml.safe_dump(made))
    return [sys.executable, "-m", "posttrain", "compare", str(folder / "study.yaml")]


def of_this_study(folder: Path) -> set[int]:
    """The processes whose environment names the folder."""
    found: set[int] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (process / "environ").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found


def started(folder: Path) -> subprocess.Popen[str]:
    """The command, once both of its workers train."""
    process = subprocess.Popen(
        small(folder), stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "STUDY_OF": str(folder)}
    )
    while len(list(folder.glob("out/starts/young/*/metrics.jsonl"))) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    return process


def test_a_signal_ends_all_runs_with_a_checkpoint_and_the_same_command_goes_on(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(signal.SIGINT)
    told = process.communicate()[1]
    assert process.returncode == 75 and "SIGINT: ended" in told, told
    assert not of_this_study(tmp_path)
    begun = sorted(path.parent.name for path in tmp_path.glob("out/starts/young/*/metrics.jsonl"))
    assert len(begun) == 2 and len(list(tmp_path.glob("out/starts/young/*/checkpoint-*"))) == 2, told
    again = subprocess.run(small(tmp_path), capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "runs: 2 of 2" in again.stderr + again.stdout, again.stderr


def test_no_run_outlives_a_study_that_is_killed(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert len(of_this_study(tmp_path)) >= 3
    process.kill()
    process.communicate()
    for _ in range(100):
        if not of_this_study(tmp_path):
            return
        time.sleep(0.1)
    pytest.fail(f"{of_this_study(tmp_path)} are still there")
