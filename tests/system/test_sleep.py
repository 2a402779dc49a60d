"""Sleep of vLLM in the process: the engine itself, on a CPU whose worker drops its weights as a GPU's does.

vLLM's worker on a CPU sleeps by doing nothing. Here it fills weights and cache with what no model has, and notes in which
order they are back: what is left out is the memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import EngineError, Request, Sampling, VLLMConfig, VLLMEngine, load_recipe, run
from posttrain.errors import SetupError
from recipes import recipe
from tiny import make_model

pytestmark = pytest.mark.system
ASKED, SAMPLING = [Request([60 + i], n=2, question=i) for i in range(4)], Sampling(max_tokens=12)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the worker did."""
    from vllm.platforms.cpu import CpuPlatform  # pyright: ignore[reportMissingImports]
    from vllm.v1.worker.cpu_worker import CPUWorker  # pyright: ignore[reportMissingImports]

    happened: list[str] = []

    def sleep(worker: Any, level: int = 1) -> None:
        happened.append(f"sleeps at level {level}")
        for parameter in worker.model_runner.get_model().parameters():
            parameter.data.fill_(torch.nan)

    def wake_up(worker: Any, tags: list[str] | None = None) -> None:
        happened.append(f"wakes {tags}")

    def reload_weights(worker: Any, *given: Any, **named: Any) -> Any:
        happened.append("takes weights")
        return honest(worker, *given, **named)

    honest = CPUWorker.reload_weights
    monkeypatch.setattr(CpuPlatform, "is_sleep_mode_available", lambda _: True)
    monkeypatch.setattr(CPUWorker, "sleep", sleep)
    monkeypatch.setattr(CPUWorker, "wake_up", wake_up)
    monkeypatch.setattr(CPUWorker, "reload_weights", reload_weights)
    for place in ("rollout.vllm.engine", "execution.prepare.preparation"):
        monkeypatch.setattr(f"posttrain.{place}.check_usable", lambda *_, **__: None)
    yield happened


ROUND = ["sleeps at level 2", "wakes ['weights']", "takes weights", "wakes ['kv_cache']"]


def test_an_engine_that_slept_wakes_with_the_weights_of_the_sync(events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    engine = VLLMEngine(model.eval(), tokenizer, VLLMConfig(sleep=True))
    backend: Any = engine._backend
    try:
        engine.sync(model, 0)
        before = engine.generate(ASKED, SAMPLING)
        del events[:]
        engine.rest()
        assert backend._llm.llm_engine.is_sleeping()
        with pytest.raises(EngineError, match="call sync"):
            engine.generate(ASKED, SAMPLING)
        with pytest.raises(EngineError, match="sleeps and has no weights"):
            engine._generate(ASKED, SAMPLING)
        engine.sync(model, 1)
        assert events == ROUND and engine.probe_difference < 1e-4
        after = engine.generate(ASKED, SAMPLING)
        assert [one.tokens.tolist() for g in after for one in g] == [one.tokens.tolist() for g in before for one in g]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.01)
        engine.rest()
        engine.sync(model, 2)
        assert events == ROUND * 2 and engine.probe_difference < 1e-4
        engine.rest()
        monkeypatch.setattr(engine._transport, "send", lambda *_: backend.rpc("get_model_inspection", {}))
        with pytest.raises(EngineError, match=r"not finite|does not sample from the trainer's weights"):
            engine.sync(model, 3)
    finally:
        engine.close()


def test_in_a_run_it_sleeps_after_each_collection_and_each_evaluation(
    events: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rollout = {"questions_per_step": 4, "n": 4, "max_tokens": 4, "engine": "vllm", "vllm": {"sleep": True}}
    held_out = {"task": "chain", "split": "held_out", "rows": 4}
    values = {
        "model": {"from_scratch": {"hidden_size": 64, "num_attention_heads": 2}, "tokenizer": "characters"},
        "algorithm": {"name": "grpo"},
        "rewards": [{"name": "task", "verdict": True}],
        "data": {"train": {"task": "chain", "rows": 32}, "eval": {"held_out": held_out}},
        "rollout": rollout,
        "eval": {"every": 1, "samples": 2},
        "training": {"max_steps": 2, "learning_rate": 1e-3, "save_every": 0},
        "output_dir": "out",
    }
    run(load_recipe(recipe(**values)))
    steps = [json.loads(line) for line in Path("out/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2 and max(step["kl/sampler_trainer"] for step in steps) < 1e-6
    first = events.index("sleeps at level 2")
    slept = events.count("sleeps at level 2")
    assert slept == 2 + 3  # collections; evaluations at the start and after each step
    assert events[first:] == (ROUND * slept)[: len(events) - first] and events[-1] == "sleeps at level 2"


def test_on_a_cpu_it_is_refused_before_anything_starts() -> None:
    model, tokenizer = make_model(dtype="float32")
    with pytest.raises(SetupError, match="vLLM does not sleep on a CPU"):
        VLLMEngine(model, tokenizer, VLLMConfig(sleep=True))
