"""Runs whose rollouts are sampled ahead, with vLLM as a server: what is killed goes on to the last bit, and leaves nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

from posttrain import VLLMConfig, VLLMEngine
from posttrain.estimator.batch import Origin
from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from posttrain.train.checkpoint import collection_file
from system.ahead_everywhere import MODEL, WAYS, train_all
from system.processes import children, environment, gone
from system.test_engines_in_runs import lines, write_recipe

pytestmark = pytest.mark.system
HERE = Path(__file__).parent
STEPS = 12
SAMPLER = "collect.ahead.child"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One that all runs share, as `rollout.vllm` names it."""
    engine = VLLMEngine(*load(ModelConfig.model_validate(MODEL), seed=0), VLLMConfig(mode="server", max_num_seqs=65))
    folder = tmp_path_factory.mktemp("weights")
    yield {"mode": "server", "url": engine.served().config.urls[0], "weights_folder": str(folder), "max_num_seqs": 65}
    engine.close()


def recipe(folder: Path, vllm: dict[str, Any], ahead: int, **training: Any) -> None:
    folder.mkdir()
    path = write_recipe(
        folder,
        {"engine": "vllm", "vllm": vllm, "ahead": ahead, "max_tokens": 3},
        **{"max_steps": STEPS, "rows_per_step": 64, "save_every": 1, **training},
    )
    values = yaml.safe_load(path.read_text())
    values["algorithm"]["correction"] = {"level": "token", "cap": 1.2}
    values["rewards"] = [{"name": "repetition", "n": 1}]
    values["eval"] |= {"every": 5, "samples": 4}
    path.write_text(yaml.safe_dump(values))


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "posttrain", "run", "recipe.yaml"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def finish(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, err = child.communicate(timeout=600)
    return child.returncode, err


def wait_for(folder: Path, child: subprocess.Popen[str], steps: int) -> None:
    end = time.monotonic() + 300
    while len(lines(folder / "out" / "metrics.jsonl")) < steps:
        assert child.poll() is None and time.monotonic() < end, finish(child)
        time.sleep(0.01)


def of_run(folder: Path) -> dict[str, Any]:
    """All that a run has written, but for times."""
    out = folder / "out"
    told = {name: lines(out / f"{name}.jsonl") for name in ("metrics", "eval", "left_out")}
    return {
        "weights": [path.read_bytes() for path in sorted((out / "final").glob("*.safetensors"))],
        "completions": {path.name: path.read_text() for path in sorted((out / "completions").iterdir())},
        **{name: [{k: v for k, v in line.items() if "second" not in k} for line in read] for name, read in told.items()},
    }


def test_killed_at_any_moment_a_run_goes_on_to_the_last_bit(server: dict[str, Any], tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        recipe(folder, server, 2)
    child = start(whole)
    assert finish(child)[0] == 0

    def kill_trainer(child: subprocess.Popen[str], sampler: int) -> None:
        child.kill()

    def kill_sampler(child: subprocess.Popen[str], sampler: int) -> None:
        os.kill(sampler, signal.SIGKILL)

    def terminate(child: subprocess.Popen[str], sampler: int) -> None:
        child.terminate()

    ends: list[tuple[int, Callable[[subprocess.Popen[str], int], None], int]] = [
        (3, kill_trainer, -signal.SIGKILL), (5, kill_sampler, 6), (8, terminate, 75)
    ]  # fmt: skip
    for step, end, code in ends:
        child = start(killed)
        wait_for(killed, child, step)
        [sampler] = children(child.pid, SAMPLER)
        end(child, sampler)
        ended, err = finish(child)
        assert ended == code and "Traceback" not in err, err
        assert code != 6 or "The sampler of rollout.ahead ended with -9" in err, err
        assert gone(sampler, within=5), "the sampler outlived its trainer"
        assert not (killed / "out" / "final").exists()
    assert finish(start(killed))[0] == 0
    assert of_run(killed) == of_run(whole)
    steps = of_run(whole)["metrics"]
    assert [step["rollout/lag"] for step in steps if "rollout/lag" in step] == [0, 2, 4, 4, 4, 4]
    assert steps[-2]["reward/mean"] > steps[0]["reward/mean"]


def test_what_is_under_way_was_sampled_from_the_weights_of_so_many_collections_before(
    server: dict[str, Any], tmp_path: Path
) -> None:
    recipe(tmp_path / "run", server, 2, rows_per_step=128, max_steps=6, save_total_limit=10)
    assert finish(start(tmp_path / "run"))[0] == 0
    out = tmp_path / "run" / "out"
    for begun, sampler in ((4, 2), (5, 3)):
        collection = collection_file.load(out / "checkpoint-4" / f"ahead-{begun:06d}.safetensors")
        assert difference(out / f"checkpoint-{sampler}", collection) < 1e-5
        assert difference(out / f"checkpoint-{sampler + 1}", collection) > 1e-3
    assert not (out / "checkpoint-4" / "ahead-000006.safetensors").exists()


@torch.no_grad()
def difference(checkpoint: Path, collection: Any) -> float:
    """The largest between what the sampler says of its tokens and what a model does, in nats."""
    model, gaps = AutoModelForCausalLM.from_pretrained(checkpoint), list[float]()
    batch = collection.batch
    assert (batch.origin == Origin.ROLLOUT).all()
    for i, row in enumerate(collection.rows):
        ids = torch.tensor([[*row.prompt.tolist(), *row.completion.tolist()]])
        logp = model(ids).logits[0, len(row.prompt) - 1 : -1].log_softmax(-1)
        own = logp.gather(1, ids[0, len(row.prompt) :, None])[:, 0]
        gaps.append(float((own - batch.behavior_logp[i, : len(own)]).abs().max()))
    return max(gaps)


def test_several_processes_adapters_and_models_that_are_spread_train_as_one_process_does(
    server: dict[str, Any], tmp_path: Path
) -> None:
    """Each answer is that of one process, since so are the weights that sampled it; the sync's proof sees to these."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    train_all(tmp_path / "one", server["url"], ["whole", "adapter"])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(HERE / "ahead_everywhere.py"), str(tmp_path / "two"), server["url"]]
    own = environment(PYTHONPATH=str(HERE.parent))
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]

    def of(name: str, way: str) -> tuple[list[list[Any]], np.ndarray]:
        folder = tmp_path / name / way
        answers = [lines(path) for path in sorted((folder / "completions").iterdir())]
        steps = lines(folder / "metrics.jsonl")
        assert [step["rollout/lag"] for step in steps] == [0, 1, 1]
        assert steps[0]["logp_diff/max"] < 1e-5 and min(step["logp_diff/max"] for step in steps[1:]) > 0.1
        return answers, np.load(tmp_path / name / f"{way}.npy")

    for way in WAYS:
        answers, trained = of("one", "adapter" if way == "adapter" else "whole")
        others, other = of("two", way)
        assert others == answers and np.abs(other - trained).max() < 1e-5, way


def test_nobody_outlives_a_trainer_that_started_its_server(tmp_path: Path) -> None:
    recipe(tmp_path / "run", {"mode": "server", "max_num_seqs": 65}, 1)
    child = start(tmp_path / "run")
    wait_for(tmp_path / "run", child, 1)
    [server], [sampler] = children(child.pid, "vllm.entrypoints"), children(child.pid, SAMPLER)
    child.kill()
    assert finish(child)[0] == -signal.SIGKILL
    assert gone(sampler, within=5) and gone(server, within=20)
