"""`posttrain run --processes 2` and the launcher beneath it: exit codes come back, one message is told, nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recipes import recipe
from system.processes import environment as clean_environment
from system.processes import gone

HERE = Path(__file__).parent
LAUNCH = "import sys; from posttrain.distributed.launch import launch; sys.exit(launch(sys.argv[2:], 2, module=sys.argv[1]))"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "posttrain"]
pytestmark = pytest.mark.system


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "temporary").mkdir()
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return clean_environment(PYTHONPATH=paths, TMPDIR=str(tmp_path / "temporary"))


def start(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", LAUNCH, *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def children(folder: Path) -> list[int]:
    return [int(path.read_text() or 0) for path in folder.glob("*.pid")]


@pytest.mark.parametrize(
    ("words", "code"), [(["0", "0"], 0), (["3", "sleeping"], 3), (["sleeping", "4"], 4), (["sleeping", "killed"], 137)]
)
def test_the_exit_code_of_the_first_that_failed_comes_back(
    words: list[str], code: int, tmp_path: Path, environment: dict[str, str]
) -> None:
    done = start(["launched", str(tmp_path), *words], environment)
    _, err = done.communicate(timeout=120)
    assert done.returncode == code and err.count("\n") == (code > 128)
    assert err.startswith("error: rank 1 was ended by SIGKILL." if code > 128 else "")
    assert len(children(tmp_path)) == 2 and all(gone(pid, 1) for pid in children(tmp_path))
    assert not list((tmp_path / "temporary").glob("torchelastic*"))


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_ends_all(by: signal.Signals, tmp_path: Path, environment: dict[str, str]) -> None:
    launcher = start(["launched", str(tmp_path), "sleeping", "sleeping"], environment)
    until = time.monotonic() + 60
    while len(children(tmp_path)) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    launcher.send_signal(by)
    launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + by
    assert len(children(tmp_path)) == 2 and all(gone(pid, 1) for pid in children(tmp_path))


@pytest.mark.parametrize("other", ["waits in an exchange", "does something else"])
@pytest.mark.parametrize(("rank", "told"), [(0, "error: row 3 is torn\n"), (1, "error (rank 1): row 3 is torn\n")])
def test_an_error_of_one_is_told_and_not_what_follows_for_the_other(
    rank: int, told: str, other: str, tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sleeping = {"SLEEPING": str(1 - rank)} if other == "does something else" else {}
    done = start(["fail_on_one", "run", recipe()], {**environment, "FAILING": str(rank), **sleeping})
    out, err = done.communicate(timeout=120)
    assert (done.returncode, out, err) == (3, "", told)


def test_a_rank_that_does_not_come_is_named_by_the_one_that_waits(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = start(["fail_on_one", "run", recipe()], {**environment, "SLEEPING": "0", "TIMEOUT": "2"})
    out, err = done.communicate(timeout=120)
    assert (done.returncode, out) == (4, "")
    told = "error: rank 1 has waited 2 s in the data: rank 0 has not come, and was last seen after the recipe."
    assert err.startswith(told) and "in barrier" in err  # the stack


@pytest.mark.parametrize("how", [["-m", "posttrain", "run", "--processes", "2"], [*TORCHRUN, "run"]])
def test_an_error_that_all_make_is_told_once(
    how: list[str], tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = recipe(data={"train": {"path": "absent.jsonl"}}, training={"max_steps": 2, "extra": {"use_cpu": True}})
    done: Any = subprocess.run(
        [sys.executable, *how, path], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(told) == 1 and told[0].startswith("error: ") and "absent.jsonl: no such file" in told[0]
    assert "posttrain/" not in done.stderr  # no traceback through our files
    if how[0:2] == ["-m", "posttrain"]:  # torchrun has a code of its own, and says itself what it starts
        assert (done.returncode, done.stderr.strip()) == (3, told[0])
        first, loading = done.stdout.splitlines()
        assert first.endswith(": sft on qwen2 from scratch, in out") and loading.startswith("loading torch")
    else:
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()
