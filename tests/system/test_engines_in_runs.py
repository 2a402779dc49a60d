"""Whole runs over each engine, and what is left of one whose engine fails: exit code 6, and a checkpoint to go on from.

The task: name the first of two letters, from eight. The policy starts from scratch; eight pairs are held out.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from system.processes import children, environment, gone

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
LETTERS, HELD_OUT = "abcdefgh", ("ab", "bd", "cf", "dh", "ea", "fc", "ge", "hg")
SERVER = {"engine": "vllm", "vllm": {"mode": "server", "deadline": 8, "max_num_seqs": 65}}
STEPS = 60


def write_recipe(folder: Path, rollout: dict[str, Any], **training: Any) -> Path:
    pairs = ["".join(pair) for pair in product(LETTERS, repeat=2)]
    for name, chosen in {"train": set(pairs) - set(HELD_OUT), "held_out": HELD_OUT}.items():
        rows = (json.dumps({"prompt": pair, "answer": pair[0]}) + "\n" for pair in sorted(chosen))
        (folder / f"{name}.jsonl").write_text("".join(rows))
    values = {
        "model": {"from_scratch": {"hidden_size": 64, "num_attention_heads": 2}, "tokenizer": {"characters": LETTERS}},
        "data": {"train": {"path": "train.jsonl"}, "eval": {"held_out": {"path": "held_out.jsonl"}}, "chat_template": False},
        "algorithm": {"name": "grpo", "kl_coef": 0.0},
        "rewards": [{"name": "exact_match", "reads_cut_off": True}],
        "rollout": {"questions_per_step": 16, "n": 8, "max_tokens": 1, "log_completions": 0, **rollout},
        "training": {"max_steps": STEPS, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "save_every": 0, **training},
        "eval": {"samples": 32, "max_tokens": 1},
        "output_dir": "out",
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return folder / "recipe.yaml"


def start(folder: Path, fault: str = "none") -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "run_with_fault.py"), fault, "run", "recipe.yaml"]
    own = environment(PYTHONPATH=str(HERE.parent))
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own)


def finish(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = child.communicate(timeout=180)
    return child.returncode, err


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def folders_of_engine(process: subprocess.Popen[str]) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"posttrain-vllm-{process.pid}-*"))


def wait_for_steps(folder: Path, child: subprocess.Popen[str], steps: int) -> None:
    end = time.monotonic() + 300
    while len(lines(folder / "out" / "metrics.jsonl")) < steps:
        assert child.poll() is None and time.monotonic() < end, finish(child)
        time.sleep(0.02)


def newest_checkpoint_loads(folder: Path) -> int:
    """The step of the newest checkpoint, whose model is there whole."""
    newest = max((folder / "out").glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    AutoModelForCausalLM.from_pretrained(newest)
    return int(newest.name.partition("-")[2])


@pytest.mark.parametrize("rollout", [{"engine": "hf"}, {"engine": "vllm"}], ids=["hf", "vllm"])
def test_the_same_recipe_learns_with_each_engine(rollout: dict[str, Any], tmp_path: Path) -> None:
    write_recipe(tmp_path, rollout)
    code, err = finish(start(tmp_path))
    assert code == 0, err
    first, last = lines(tmp_path / "out" / "eval.jsonl")
    assert first["eval/held_out/pass@1"] < 0.2 and last["eval/held_out/pass@1"] > 0.8
    steps = lines(tmp_path / "out" / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert max(step["logp_diff/max"] for step in steps) < 1e-4
    assert steps[-1]["reward/exact_match"] > 0.9 > 0.5 > steps[0]["reward/exact_match"]


def test_a_fault_of_the_engine_in_the_process_ends_the_run_and_it_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    write_recipe(tmp_path, {"engine": "vllm", "vllm": {"deadline": 8}}, max_steps=20, save_every=1)
    for fault, step, says in [
        ("skipped", 3, "does not sample from the trainer's weights"),
        ("stale_cache", 5, "does not sample from the trainer's weights"),
        ("hang", 7, "made no progress for 8 s and counts as hung"),
    ]:
        child = start(tmp_path, fault)
        code, err = finish(child)
        assert code == 6 and says in err, err
        assert newest_checkpoint_loads(tmp_path) == step
        assert not (tmp_path / "out" / "final").exists()
        assert not folders_of_engine(child)
    child = start(tmp_path)
    wait_for_steps(tmp_path, child, 9)
    assert folders_of_engine(child)
    child.terminate()
    code, err = finish(child)
    assert code == 75 and not folders_of_engine(child), err
    assert newest_checkpoint_loads(tmp_path) >= 8
    steps = lines(tmp_path / "out" / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert max(step["logp_diff/max"] for step in steps) < 1e-4


def test_a_server_ends_with_its_trainer_and_one_that_hangs_ends_the_run_which_can_go_on(
    tmp_path: Path,
) -> None:
    write_recipe(tmp_path, SERVER, max_steps=20, save_every=1)
    child = start(tmp_path)
    wait_for_steps(tmp_path, child, 2)
    [server] = children(child.pid, "vllm.entrypoints")
    child.kill()
    assert finish(child)[0] == -signal.SIGKILL and gone(server, within=20), "the server outlived its trainer"
    done = len(lines(tmp_path / "out" / "metrics.jsonl"))
    child = start(tmp_path)
    wait_for_steps(tmp_path, child, done + 2)
    [server] = children(child.pid, "vllm.entrypoints")
    os.killpg(server, signal.SIGSTOP)
    code, err = finish(child)
    assert code == 6 and "hangs" in err and "Traceback" not in err.partition("Its last words")[0], err
    assert newest_checkpoint_loads(tmp_path) >= done + 1
    assert gone(server, within=5)
    assert not (tmp_path / "out" / "final").exists()
    steps = lines(tmp_path / "out" / "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert max(step["logp_diff/max"] for step in steps) < 1e-4
