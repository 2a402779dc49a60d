"""Episodes over every engine, on two ranks, by every algorithm, killed in the middle of one, and with a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cases import NAMES, first_of_needs
from ground.catalogue import MODEL, finished
from gsm8k import real_data
from posttrain.algorithms import ALGORITHMS, example_values
from recipes import Command
from system.processes import environment

pytestmark = pytest.mark.system
SMALL = {
    "model": {"from_scratch": {"hidden_size": 64, "num_attention_heads": 2}, "tokenizer": {"characters": "0123456789<>!?"}},
    "environment": {"name": "guess", "question": "?", "max_turns": 4, "turn_tokens": 2},
    "algorithm": {"name": "grpo", "kl_coef": 0},
    "data": {"chat_template": False, "train": {"environment": {"rows": 100}}},
    "rollout": {"questions_per_step": 8, "n": 8, "max_tokens": 8, "log_completions": 1},
    "training": {"max_steps": 4, "learning_rate": 3e-3, "lr_scheduler_type": "constant", "save_every": 2},
    "output_dir": "out",
}
PLAYED = [
    value
    for config, value in zip(ALGORITHMS, example_values(), strict=True)
    if config.trains_on == "rollouts" and not (config.beside_rollouts or config.has_teacher or config.takes_demonstrations)
]
KILLED = """
import os, signal, sys
from posttrain.environments.sessions import Sessions
plain, calls = Sessions.step, 0
def step(self, turns):
    global calls
    calls += 1
    if calls == 10:  # in the third step, after its first turn
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(self, turns)
Sessions.step = step
sys.argv = ["posttrain", *sys.argv[1:]]
from posttrain.cli import main
main()
"""


def written(folder: Path, **changes: Any) -> str:
    values: dict[str, Any] = {**SMALL, **changes}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "recipe.yaml")


def command(folder: Path, *arguments: str) -> None:
    words = [sys.executable, "-m", "posttrain", "run", written(folder), *arguments]
    done = subprocess.run(words, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def metrics(folder: Path, out: str = "out") -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / out / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, out: str = "out") -> dict[str, torch.Tensor]:
    files = sorted((folder / out / "final").glob("*.safetensors"))
    return {name: value for file in files for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one process over transformers."""
    folder = tmp_path_factory.mktemp("plain")
    command(folder)
    return folder


@pytest.mark.parametrize(
    ("mode", "dtype", "nats"),
    [("in_process", "float32", 1e-4), ("server", "float32", 1e-4), ("in_process", "bfloat16", 0.25)],
)
def test_engines_and_the_trainer_agree_over_all_turns(tmp_path: Path, mode: str, dtype: str, nats: float) -> None:
    served = f"{{mode: {mode}, dtype: {dtype}, max_num_seqs: 65}}"
    over = (f"rollout.vllm={served}", "rollout.engine=vllm", "training.max_steps=1")
    command(tmp_path, *(word for change in over for word in ("--set", change)))
    for step in metrics(tmp_path):
        assert step["env/turns"] > 1.5 and step["logp_diff/max"] < nats, step


@pytest.mark.parametrize("mode", ["ddp", "fsdp2"])
def test_two_ranks_play_what_one_plays(tmp_path: Path, plain: Path, mode: str) -> None:
    """Under fsdp2 the ranks sample in lockstep, whose episodes have unequal numbers of turns."""
    command(tmp_path, "--set", f"distributed={{mode: {mode}, processes: 2}}")
    for one, two in zip(metrics(plain), metrics(tmp_path), strict=True):
        for name in ("env/turns", "reward/mean", "rollout/tokens"):
            assert one[name] == two[name], name
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=0, atol=2e-5)


SHAKY = """
from pathlib import Path
from posttrain.environments.kinds.guess import GuessConfig


class Shaky:
    def __init__(self, left):
        self.plain, self.left = GuessConfig(question="?", max_turns=4).build()(), Path(left)

    async def reset(self, columns, seed):
        self.file = self.left / str(columns["number"])
        return await self.plain.reset(columns, seed)

    async def step(self, turn):
        if int(self.file.name) % 4 == 1 and not self.file.exists():
            self.file.touch()
            raise RuntimeError("once")
        return await self.plain.step(turn)

    async def close(self):
        await self.plain.close()
"""


def test_ranks_in_lockstep_play_again_what_failed_on_one(tmp_path: Path, plain: Path) -> None:
    (tmp_path / "own.py").write_text(SHAKY)
    (tmp_path / "left").mkdir()
    shaky = {**SMALL["environment"], "name": "class", "path": "own.py:Shaky", "options": {"left": str(tmp_path / "left")}}
    del shaky["question"]
    changes = f"environment={json.dumps({**shaky, 'retries': 2})}", "distributed={mode: fsdp2, processes: 2}"
    command(tmp_path, "--allow-code", *(word for change in changes for word in ("--set", change)))
    found = metrics(tmp_path)
    assert all(step["env/faults"] == 0 for step in found) and any(step["env/retried"] > 0 for step in found)
    for one, two in zip(metrics(plain), found, strict=True):
        for name in ("env/turns", "reward/mean", "rollout/tokens"):
            assert one[name] == two[name], name
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(tmp_path)[name], value, rtol=0, atol=2e-5)


def test_a_run_that_is_killed_in_mid_episode_goes_on(tmp_path: Path, plain: Path) -> None:
    words = [sys.executable, "-c", KILLED, "run", written(tmp_path)]
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, timeout=300, check=False)
    assert done.returncode == -9 and 0 < len(metrics(tmp_path)) < 4 and not (tmp_path / "out/final").exists()
    command(tmp_path)
    for name, value in weights(plain).items():
        assert torch.equal(weights(tmp_path)[name], value), name


@pytest.mark.parametrize("name", first_of_needs(PLAYED))
def test_algorithms_that_learn_from_rollouts_alone_play(name: str, posttrain: Command) -> None:
    """The first of those with the same needs; what others wrote moves none of them (tests/properties/test_others.py)."""
    changes = {"algorithm": {"name": name}, "training": {**SMALL["training"], "max_steps": 2, "save_every": 0}}
    code, _, err = posttrain("run", written(Path(), **changes))
    assert code == 0, err
    for step in metrics(Path()):
        assert step["env/turns"] > 1 and step["logp_diff/max"] < 1e-4


def test_those_are_all() -> None:
    assert {"grpo", "rloo", "dapo", "gspo", "cispo", "reinforce_pp"} < {one.name for one in PLAYED} < {*NAMES}


def test_a_real_model_plays_by_its_own_template(tmp_path: Path) -> None:
    """GSM8K's questions with a calculator: what it writes is read, answered, masked and graded, however well it does."""
    asked = "{question}\nFor each step write a line such as calc(12*3). At the end write #### and the number."
    path = written(
        tmp_path,
        model={"name": str(finished(MODEL)), "dtype": "float32"},
        environment={"name": "calculator", "question": asked, "max_turns": 2, "turn_tokens": 16},
        data={"train": {"path": str(real_data() / "gsm8k_train.jsonl"), "columns": {"prompt": "question"}, "limit": 8}},
        rollout={"questions_per_step": 1, "n": 4, "max_tokens": 32, "log_completions": 1},
        training={"max_steps": 1, "learning_rate": 1e-6, "save_every": 0},
    )
    done = subprocess.run(
        [sys.executable, "-m", "posttrain", "run", path],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for step in metrics(tmp_path):
        assert step["env/turns"] > 1 and step["logp_diff/max"] < 1e-3 and step["env/faults"] == 0
        assert step["env/observation_tokens"] > 0 and "reward/environment" in step
    kept = [json.loads(line) for line in (tmp_path / "out/completions/step-000001.jsonl").read_text().splitlines()]
    assert all(turn["others"] for one in kept for turn in one["turns"][:-1])
    assert all(one["correct"] is not None and one["graded"] for one in kept)
