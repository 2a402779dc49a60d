"""A Slurm job as it is written, under commands that do here what Slurm's do: two machines that are both this one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes import recipe

pytestmark = pytest.mark.system
SRUN = """#!/usr/bin/env bash
# As srun: the command once for each machine, with its number; the largest exit code is its own.
while [ "${1#--}" != "$1" ]; do shift; done
children=()
for ((node = 0; node < PET_NNODES; node++)); do SLURM_NODEID=$node "$@" & children+=($!); done
code=0
for child in "${children[@]}"; do
  wait "$child" && one=0 || one=$?
  ((one > code)) && code=$one
done
exit "$code"
"""
SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo localhost; else echo "$@" >>requeued; fi
"""


def commands(folder: Path) -> None:
    here = f'#!/bin/sh\nexec {sys.executable} -m posttrain "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "posttrain": here}.items():
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def test_two_machines_train_are_warned_queued_again_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands(tmp_path / "bin")
    training = {"max_steps": 400, "rows_per_step": 4, "save_every": 200}
    path = recipe(training=training, data={"train": {"task": "chain", "rows": 64}}, output_dir="runs/x")
    asked = [sys.executable, "-m", "posttrain", "launch", path, "--on", "slurm", "--nodes", "2", "--gpus", "0"]
    written = subprocess.run(asked, capture_output=True, text=True)
    assert written.returncode == 0, written.stderr
    Path("job.sh").write_text(written.stdout)
    slurm = {"SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "7"}
    environment = {**os.environ, **slurm, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    codes = list[int]()
    for attempt in range(2):
        environment["PET_MASTER_PORT"] = str(free_port())
        with Path(f"log-{attempt}").open("w") as log:
            job = subprocess.Popen(["bash", "job.sh"], env=environment, stdout=log, stderr=log, start_new_session=True)
            if not attempt:
                _wait_for_steps(tmp_path / "runs/x/metrics.jsonl", job)
                os.kill(job.pid, signal.SIGUSR1)  # --signal=B:USR1: to the script alone
            codes.append(job.wait(timeout=300))
    logs = Path("log-0").read_text() + Path("log-1").read_text()
    assert codes == [75, 0], logs
    assert Path("requeued").read_text() == "requeue 7\n"
    steps = [json.loads(line)["step"] for line in Path("runs/x/metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 401)) and Path("runs/x/final").is_dir()
    starts = [json.loads(line) for line in Path("runs/x/starts.jsonl").read_text().splitlines()]
    assert [one["processes"] for one in starts] == [2, 2] and 0 == starts[0]["from_step"] < starts[1]["from_step"] < 400


def _wait_for_steps(path: Path, job: subprocess.Popen[bytes]) -> None:
    while not path.is_file() or path.read_text().count("\n") < 5:
        assert job.poll() is None, Path("log-0").read_text()
        time.sleep(0.05)
