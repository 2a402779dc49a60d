"""transformers' continuous batching as an engine: the contract of every engine, and what is its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from posttrain import Request, Sampling
from posttrain.errors import EngineError, SetupError
from posttrain.rollout.continuous import ContinuousEngine
from posttrain.rollout.make import make_engine
from posttrain.settings.model import Adapter
from posttrain.settings.rollout import RolloutConfig
from rollout.engine_contract import PROMPTS, EngineContract, Subject, ask, of_model, tokens
from tiny import make_model


@pytest.fixture(scope="module")
def subject() -> Subject:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    return of_model(ContinuousEngine(model.eval(), tokenizer), model, tokenizer)


class TestContinuous(EngineContract):
    def test_the_same_seed_step_question_and_sample_give_the_same_completion(self, subject: Subject) -> None:
        """Only a whole call is repeated: an answer depends on its neighbours."""
        sampling = Sampling(max_tokens=12, temperature=1.3, seed=2)
        whole = subject.engine.generate(ask(*PROMPTS, n=3), sampling)
        assert tokens(subject.engine.generate(ask(*PROMPTS, n=3), sampling)) == tokens(whole)


def test_what_trains_is_as_it_was_after_it_has_sampled() -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512, adapter=Adapter(r=4))
    engine = ContinuousEngine(model.train(), tokenizer)
    attention, state = model.config._attn_implementation, torch.get_rng_state()
    engine.sync(model, 3)
    [[answer]] = engine.generate([Request([60, 61], n=1)], Sampling(max_tokens=5))
    assert answer.version == 3
    assert model.training and model.config._attn_implementation == attention
    assert torch.equal(torch.get_rng_state(), state), "dropout would be another one"


def test_log_probs_that_are_not_the_models_are_refused_at_the_first_sync() -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    other, _ = make_model(dtype="float32", max_position_embeddings=512)
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(1.5)
    engine = ContinuousEngine(model, tokenizer)
    generate = engine._generate

    def of_another(*given: Any, **options: Any) -> Any:
        engine._model = other
        try:
            return generate(*given, **options)
        finally:
            engine._model = model

    engine._generate = of_another
    with pytest.raises(EngineError, match=r"hf \(batching: continuous\) differ from the trainer's"):
        engine.sync(model, 0)
    engine._generate = generate
    engine.sync(model, 0)


def test_a_thread_that_fails_is_an_error_and_the_model_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    engine = ContinuousEngine(model.train(), tokenizer)

    def fails(*given: Any, **options: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(model.model, "forward", fails)
    with pytest.raises(EngineError, match="Continuous batching failed: out of memory"):
        engine.generate([Request([60], n=2)], Sampling(max_tokens=4))
    assert model.training


def test_under_accelerates_autocast_it_samples_in_the_dtype_of_the_weights() -> None:
    """In which transformers holds keys and values; the probe's bound is that of bfloat16."""
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    try:
        prepared, wrapped = accelerator.prepare_model(model), model.forward
        engine = ContinuousEngine(prepared, tokenizer)
        with accelerator.autocast():
            engine.sync(prepared, 1)
            [[answer]] = engine.generate([Request([60, 61], n=1)], Sampling(max_tokens=5))
        assert len(answer.tokens) == 5 and prepared.forward == wrapped
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_an_older_one_of_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    monkeypatch.setattr("transformers.__version__", "5.18.2")
    with pytest.raises(SetupError, match=r"is older than what was tried: take 5\.19, or rollout\.hf"):
        ContinuousEngine(model, tokenizer)


def test_a_recipe_chooses_it_and_a_model_that_is_spread_is_refused() -> None:
    model, tokenizer = make_model(dtype="float32")
    config = RolloutConfig.model_validate({"hf": {"batching": "continuous"}})
    assert isinstance(make_engine(config, model, tokenizer, compute="float32", allow_remote=False), ContinuousEngine)
    with pytest.raises(SetupError, match="spread over processes"):
        make_engine(config, model, tokenizer, compute="float32", allow_remote=False, lockstep=True)
    with pytest.raises(ValueError, match="hf: its settings need engine: hf"):
        RolloutConfig.model_validate({"engine": "vllm", "hf": {"batching": "continuous"}})
