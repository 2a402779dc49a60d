"""One run at a time in a folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.errors import CheckpointError
from posttrain.execution.folder import lock
from posttrain.execution.folder.lock import LOCK, check_unlocked, locked

HOLD = "import sys, time; from pathlib import Path; from posttrain.execution.folder.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"


def holder(folder: Path) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def test_a_second_run_is_told_who_has_the_folder_and_a_dead_one_has_none(tmp_path: Path) -> None:
    child = holder(tmp_path / "run")
    with pytest.raises(CheckpointError, match=f"is in use: process {child.pid} on .* since 20"):
        check_unlocked(tmp_path / "run")
    with pytest.raises(CheckpointError, match="is in use"), locked(tmp_path / "run"):
        pass
    child.kill()
    child.wait()
    check_unlocked(tmp_path / "run")
    with locked(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_what_it_made_goes_with_it_and_what_is_in_it_stays(tmp_path: Path) -> None:
    with locked(tmp_path / "a/b"):
        assert (tmp_path / "a/b").is_dir()
    assert not (tmp_path / "a").exists()
    with locked(tmp_path / "a/b"):
        (tmp_path / "a/b/metrics.jsonl").write_text("")
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("another_came", [False, True])
def test_the_lock_of_a_run_that_ends_as_it_is_taken_is_no_lock(
    another_came: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is opened, then deleted by the run that ends; what is locked then is a file that nobody else can see."""
    honest, others = lock._take, contextlib.ExitStack()

    def taken(descriptor: int) -> bool:
        monkeypatch.setattr(lock, "_take", honest)
        (tmp_path / LOCK).unlink()
        if another_came:
            others.enter_context(locked(tmp_path))
        return honest(descriptor)

    monkeypatch.setattr(lock, "_take", taken)
    refused = pytest.raises(CheckpointError, match="is in use") if another_came else contextlib.nullcontext()
    with others, refused, locked(tmp_path), pytest.raises(CheckpointError, match="is in use"):
        check_unlocked(tmp_path)


def test_the_command_refuses_it_before_it_loads_anything(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {from_scratch: {}, tokenizer: bytes}\nalgorithm: {name: sft}\ndata: {train: {path: rows.jsonl}}\n"
        "training: {max_steps: 1, learning_rate: 0.1}\noutput_dir: run\n"
    )
    child = holder(tmp_path / "run")
    try:
        command = [sys.executable, "-X", "importtime", "-m", "posttrain", "run", "recipe.yaml"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        told = [line for line in done.stderr.splitlines() if not line.startswith("import time")]
        assert done.returncode == 8 and "is in use" in "".join(told), done.stderr[-2000:]
        assert "| torch\n" not in done.stderr
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
