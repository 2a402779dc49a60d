"""The contract of `posttrain run`, on the command itself with its view of the progress, on a terminal and without one: each
fault ends with its exit code and one sentence, and nothing that a terminal would obey comes from data.

Of the faults of docs/reliability.md these have system tests of their own: F2, F3, F6 in test_interruptions.py, F13 to F15 in
test_engines_in_runs.py and test_vllm.py, F21 in test_two_ranks.py; F9 needs a device that is full (tests/train); F11 and F12
are in tests/rewards.
"""

from __future__ import annotations

import json
import os
import pty
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from system.processes import environment

pytestmark = pytest.mark.system
ROWS = [{"prompt": f"{i} + 1 =", "completion": str(i + 1), "answer": str(i + 1)} for i in range(8)]
SFT: dict[str, Any] = {
    "model": {
        "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
        "tokenizer": "characters",
    },
    "algorithm": {"name": "sft"},
    "data": {"train": {"path": "rows.jsonl"}},
    "training": {"max_steps": 4, "rows_per_step": 4, "save_every": 2},
    "output_dir": "out",
}
GRPO: dict[str, Any] = {
    "algorithm": {"name": "grpo", "kl_coef": 0.0},
    "rewards": [{"name": "exact_match"}],
    "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4},
    "training": {"max_steps": 6},
}
RAISES = "def reward(completions, **_):\n    raise ValueError('never \\x1b[2J again')\n"


@dataclass(frozen=True)
class Case:
    """A fault: what differs from a good run of SFT, what was done before, and how it must end.

    `again`: the good run was made in that folder before anything else.
    """

    code: int
    says: str
    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    again: bool = False
    before: Callable[[Path], None] = lambda _: None
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict[str, str])
    largest_file: int | None = None
    before_torch: bool = False


def training(**values: Any) -> dict[str, Any]:
    return {"training": {**SFT["training"], **values}}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good run of SFT, as it left its folder."""
    folder = tmp_path_factory.mktemp("good")
    write_rows(folder, ROWS)
    write_recipe(folder, {})
    assert command(folder)[0] == 0
    return folder / "out"


def damage_the_newest(folder: Path) -> None:
    shutil.rmtree(folder / "out" / "final")
    (folder / "out" / "checkpoint-4" / "model.safetensors").write_bytes(b"torn")


def change_the_data(folder: Path) -> None:
    shutil.rmtree(folder / "out" / "final")
    write_rows(folder, [*ROWS[:-1], {"prompt": "9 + 9 =", "completion": "18"}])


def change_the_recipe(folder: Path) -> None:
    shutil.rmtree(folder / "out" / "final")
    write_recipe(folder, {"seed": 1})


def write_rows(folder: Path, rows: list[Any]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recipe(folder: Path, changes: dict[str, Any]) -> None:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**SFT, **changes}))


FUNCTION = {**GRPO, "rewards": [{"name": "function", "path": "reward.py:reward"}]}
CASES = {
    "F1 and F20: again, when it is finished": Case(0, "is finished; nothing was done", again=True),
    "F4: the newest checkpoint is damaged": Case(0, "checkpoint-4 is damaged", again=True, before=damage_the_newest),
    "F5: a file that cannot be written whole": Case(8, "cannot be written", largest_file=20_000),
    "F7: a learning rate of 1e30": Case(5, "is not finite, in 3 steps", training(max_steps=9, learning_rate=1e30)),
    "F10: a reward that raises": Case(7, "reward", FUNCTION, options=("--allow-code",)),
    "F16: a row that cannot be used": Case(
        3, "rows.jsonl:3:", before=lambda folder: write_rows(folder, [*ROWS[:2], {"prompt": "\x1b[2Jodd"}])
    ),
    "F17: other data": Case(8, "was trained on other data", again=True, before=change_the_data),
    "F18: a key that does not exist": Case(2, "did you mean seed?", {"sede": 1}, before_torch=True),
    "F18: another recipe's folder": Case(
        8, "another recipe (seed: 0 then, 1 now)", again=True, before=change_the_recipe, before_torch=True
    ),
    "F18: code without leave": Case(2, "--allow-code", FUNCTION, before_torch=True),
    "F19: a tracker that is not installed": Case(4, "pip install mlflow", training(report_to=["mlflow"]), before_torch=True),
    "F22: no locale, no home, no UTF-8": Case(
        0, "Run: ", environment={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "HOME": "/nowhere", "TERM": "dumb"}
    ),
    "rewards that never vary": Case(0, "Rewards never vary", GRPO),
}


def command(folder: Path, case: Case = Case(0, ""), *, terminal: bool = False) -> tuple[int, str]:
    """Exit code and all that is printed, on a terminal of its own or into a pipe."""
    arguments = [sys.executable, "-m", "posttrain", "run", "recipe.yaml", *case.options]
    known = environment(COLUMNS="400", PYTHONPROFILEIMPORTTIME="1" if case.before_torch else "", **case.environment)

    def limited() -> None:
        if case.largest_file is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.largest_file, case.largest_file))

    start: dict[str, Any] = {"cwd": folder, "env": known, "preexec_fn": limited}
    if not terminal:
        done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=170, **start)
        return done.returncode, done.stdout.decode(errors="replace")
    ours, theirs = pty.openpty()
    child = subprocess.Popen(arguments, stdin=theirs, stdout=theirs, stderr=theirs, **start)
    os.close(theirs)
    printed = b""
    while True:
        try:
            printed += (read := os.read(ours, 65536))
        except OSError:  # the other end is closed
            read = b""
        if not read:
            break
    os.close(ours)
    return child.wait(timeout=170), printed.decode(errors="replace")


@pytest.mark.parametrize("name", CASES)
def test_each_fault_ends_with_its_code_and_its_sentence(name: str, good: Path, tmp_path: Path) -> None:
    case = CASES[name]
    write_rows(tmp_path, ROWS)
    if case.again:
        shutil.copytree(good, tmp_path / "out")
    (tmp_path / "reward.py").write_text(RAISES)
    write_recipe(tmp_path, case.changes)
    case.before(tmp_path)
    code, printed = command(tmp_path, case)
    assert code == case.code and case.says in printed, printed
    assert "Traceback" not in printed and "\x1b" not in printed
    assert sum(line.startswith("error: ") for line in printed.splitlines()) == (code != 0)
    assert not case.before_torch or "torch" not in printed.replace("pip install", "")
    assert (tmp_path / "out" / "final").is_dir() is (code == 0)
    assert not list(tmp_path.rglob("*.partial"))


ON_A_TERMINAL = ("F7: a learning rate of 1e30", "rewards that never vary", "F16: a row that cannot be used")


@pytest.mark.parametrize("name", ON_A_TERMINAL)
def test_and_the_same_beside_the_progress_bar_of_a_terminal(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    write_rows(tmp_path, ROWS)
    write_recipe(tmp_path, case.changes)
    case.before(tmp_path)
    code, printed = command(tmp_path, case, terminal=True)
    assert code == case.code and case.says in printed, printed
    assert "Traceback" not in printed and "\x1b[2Jodd" not in printed
    told = printed.partition("Warnings")[0].count("Rewards never vary")
    assert told == (name == "rewards that never vary")
