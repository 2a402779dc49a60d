"""The probe passes an engine with the trainer's weights, and no other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from posttrain import Completion, Request, Sampling
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.probe import Probe
from posttrain.settings.model import Adapter
from tiny import make_model


@pytest.fixture(scope="module", params=[None, Adapter(r=4)], ids=["full", "lora"])
def asked(request: pytest.FixtureRequest) -> tuple[Any, Probe, dict[str, Completion]]:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, adapter=request.param)
    probe = Probe(len(tokenizer), 512, tokenizer.pad_token_id or 0)
    return model, probe, answered(model, probe, probe.sampling)


def answered(model: Any, probe: Probe, sampling: Sampling) -> dict[str, Completion]:
    """Of two engines, whose answers differ in length."""
    engine = HFEngine(model, _tokenizer())
    [[whole]] = engine.generate([Request(probe.prompt)], sampling)
    [[short]] = engine.generate([Request(probe.prompt, question=1)], dataclasses.replace(sampling, max_tokens=5))
    return {"one": whole, "other": short}


def test_it_is_longer_than_two_cache_blocks_and_fits_a_small_context(asked: Any) -> None:
    _, probe, _ = asked
    assert len(probe.prompt) > 256
    small = Probe(300, 40, 0)
    assert len(small.prompt) + small.sampling.max_tokens <= 40


def test_the_same_weights_pass_in_train_mode_too(asked: Any) -> None:
    model, probe, answers = asked
    model.train()
    difference, faults = probe.check(model, answers, 1, None)
    assert difference < 1e-4 and not faults
    assert model.training
    model.eval()


@pytest.mark.parametrize("size", [0.003, 1.0])
def test_other_weights_do_not(asked: Any, size: float) -> None:
    model, probe, answers = asked
    changed = [p for p in model.parameters() if p.requires_grad][-1]
    rng = torch.Generator().manual_seed(0)
    before = changed.detach().clone()
    with torch.no_grad():
        changed += size * torch.randn(changed.shape, generator=rng)
    try:
        if max(probe.differences(model, list(answers.values()))) < 1e-3:
            pytest.fail("the change is too small to be a test")
        _, faults = probe.check(model, answers, 7, None)
        assert "over the bound of 0.001" in str(faults["one"]) and "sync to version 7 " in str(faults["one"])
        assert faults["one"].exit_code == 6
        assert not probe.check(model, answers, 7, 100.0)[1]
    finally:
        with torch.no_grad():
            changed.copy_(before)


def test_raw_log_probs_instead_of_processed_ones_do_not(asked: Any) -> None:
    model, probe, _ = asked
    raw = answered(model, probe, dataclasses.replace(probe.sampling, temperature=1.0))
    _, faults = probe.check(model, raw, 1, None)
    assert "logprobs_mode" in str(faults["one"])


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_a_log_prob_that_is_not_finite_is_its_engines_fault_alone(asked: Any, fault: float) -> None:
    model, probe, answers = asked
    short = answers["other"]
    broken = {**answers, "other": dataclasses.replace(short, logprobs=(fault, *short.logprobs[1:]))}
    difference, faults = probe.check(model, broken, 1, None)
    assert list(faults) == ["other"] and "the engine other differ" in str(faults["other"])
    assert difference == math.inf and "inf nats" in str(faults["other"])


def test_the_bound_follows_the_dtype_that_the_model_computes_in(asked: Any) -> None:
    model, probe, answers = asked
    with torch.autocast("cpu", torch.bfloat16):
        difference, _ = probe.check(model, answers, 1, None)
    assert 1e-3 < difference < 0.25


def test_the_bound_follows_the_dtype_that_the_engines_serve(asked: Any) -> None:
    model, probe, answers = asked
    off = dataclasses.replace(answers["one"], logprobs=tuple(p - 0.01 for p in answers["one"].logprobs))
    difference, faults = probe.check(model, {"one": off}, 1, None, served=torch.bfloat16)
    assert difference == pytest.approx(0.01, rel=0.1) and not faults
    _, faults = probe.check(model, {"one": off}, 1, None, served=torch.float32)
    assert "over the bound of 0.001" in str(faults["one"])


def _tokenizer() -> Any:
    return make_model(dtype="float32")[1]
