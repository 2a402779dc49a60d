"""The probe passes an engine with the trainer's weights, and no other."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from posttrain.errors import EngineError
from posttrain.rollout.hf import HFEngine
from posttrain.rollout.probe import Probe
from posttrain.settings.model import Adapter
from tiny import make_model


@pytest.fixture(scope="module", params=[None, Adapter(r=4)], ids=["full", "lora"])
def asked(request: pytest.FixtureRequest) -> tuple[Any, Probe, list[Any]]:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, adapter=request.param)
    probe = Probe(len(tokenizer), 512, tokenizer.pad_token_id or 0)
    [answers] = HFEngine(model, tokenizer).generate([probe.request], probe.sampling)
    return model, probe, answers


def test_it_is_longer_than_two_cache_blocks_and_fits_a_small_context(asked: Any) -> None:
    _, probe, answers = asked
    assert len(probe.request.prompt) > 256 and len(answers) > 1
    small = Probe(300, 40, 0)
    assert len(small.request.prompt) + small.sampling.max_tokens <= 40


def test_the_same_weights_pass_in_train_mode_too(asked: Any) -> None:
    model, probe, answers = asked
    model.train()
    assert probe.check(model, answers, 1, None) < 1e-4
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
        if float(probe.difference(model, answers)) < 1e-3:
            pytest.fail("the change is too small to be a test")
        with pytest.raises(EngineError, match=r"sync to version 7 .* over the bound of 0\.001") as refused:
            probe.check(model, answers, 7, None)
        assert refused.value.exit_code == 6
        probe.check(model, answers, 7, 100.0)
    finally:
        with torch.no_grad():
            changed.copy_(before)


def test_raw_log_probs_instead_of_processed_ones_do_not(asked: Any) -> None:
    model, probe, _ = asked
    [raw] = HFEngine(model, _tokenizer()).generate([probe.request], dataclasses.replace(probe.sampling, temperature=1.0))
    with pytest.raises(EngineError, match="logprobs_mode"):
        probe.check(model, raw, 1, None)


@pytest.mark.parametrize("fault", [math.nan, math.inf, -math.inf])
def test_a_log_prob_that_is_not_finite_does_not(asked: Any, fault: float) -> None:
    model, probe, answers = asked
    broken = [dataclasses.replace(answers[0], logprobs=(fault, *answers[0].logprobs[1:])), *answers[1:]]
    with pytest.raises(EngineError, match="inf nats"):
        probe.check(model, broken, 1, None)


def test_the_bound_follows_the_dtype_that_the_model_computes_in(asked: Any) -> None:
    model, probe, answers = asked
    with torch.autocast("cpu", torch.bfloat16):
        difference = probe.check(model, answers, 1, None)
    assert 1e-3 < difference < 0.25


def _tokenizer() -> Any:
    return make_model(dtype="float32")[1]
