"""At the start nothing is drawn where log-probs are compared, and the reference is what the policy is."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, FalconConfig, MixtralConfig, OPTConfig

from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.estimator.divergence import Divergence
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.start import reference_of, switch_off_noise
from posttrain.model.scoring import Scorer
from posttrain.settings.model import Adapter
from posttrain.telling import hearing
from tiny import make_model, parameters

VOCABULARY = 96
SIZE: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
NOISY: dict[str, tuple[Any, str]] = {
    "layers that are left out": (
        OPTConfig(**SIZE, ffn_dim=48, word_embed_proj_dim=32, max_position_embeddings=64, dropout=0.0, layerdrop=0.3),
        "layerdrop 0.3",
    ),
    "dropout in a config": (FalconConfig(**SIZE, hidden_dropout=0.2), "hidden_dropout 0.2"),
    "a router's jitter": (
        MixtralConfig(**SIZE, intermediate_size=48, num_key_value_heads=1, num_local_experts=4, router_jitter_noise=0.4),
        "jitter_noise 0.4",
    ),
}


@pytest.mark.parametrize("name", NOISY)
def test_every_noise_is_switched_off_by_name(name: str) -> None:
    config, says = NOISY[name]
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config)
    rows, state = ProbeRows.of((), VOCABULARY), torch.get_rng_state()
    before = {rows.logp(model, training=True).sum().item() for _ in range(12)}
    torch.set_rng_state(state)
    with hearing() as heard:
        switch_off_noise(model, VOCABULARY)
    assert len(before) > 1 and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(rows.logp(model, training=True), rows.logp(model)) for _ in range(12))
    [told] = heard
    assert told.rule == "noise" and says in told.sentence


def test_dropout_of_a_model_and_of_its_adapter_is_off() -> None:
    model, _ = make_model(attention_dropout=0.5, adapter=Adapter(r=2, dropout=0.25))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)  # an untouched adapter adds zero, dropout or not
    with hearing() as heard:
        switch_off_noise(model, VOCABULARY)
    assert "attention_dropout 0.5" in heard[0].sentence and "Dropout 0.25" in heard[0].sentence
    rows = ProbeRows.of((), VOCABULARY)
    assert torch.equal(rows.logp(model, training=True), rows.logp(model))


def test_a_model_without_noise_is_told_nothing_and_keeps_its_generators() -> None:
    model, _ = make_model()
    state = torch.get_rng_state()
    with hearing() as heard:
        switch_off_noise(model, VOCABULARY)
    assert not heard and torch.equal(torch.get_rng_state(), state)


class Restless(nn.Module):
    """A layer that adds noise at no rate that it says."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        out = self.layer(hidden)
        return out + torch.rand_like(out) if self.training else out


def test_noise_that_has_no_name_is_refused() -> None:
    model, _ = make_model()
    model.model.layers[0].mlp = Restless(model.model.layers[0].mlp)
    with pytest.raises(SetupError, match="gives other log-probs in training than in evaluation"):
        switch_off_noise(model, VOCABULARY)


def trained_before(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def adapted(**options: Any) -> Any:
    torch.manual_seed(0)
    model, tokenizer = make_model(dtype="float32")
    return get_peft_model(
        model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"], **options)
    ), tokenizer


@pytest.mark.parametrize("trained", [True, False], ids=["trained before", "pissa"])
def test_the_reference_of_an_adapter_that_is_not_zero_is_what_the_policy_was(
    trained: bool, make_trainer: Callable[..., PostTrainer]
) -> None:
    model, tokenizer = adapted(**({} if trained else {"init_lora_weights": "pissa"}))
    if trained:
        trained_before(model)
    start = parameters(model)
    with hearing() as heard:
        trainer = make_trainer("dpo", model=(model, tokenizer), learning_rate=0.0, max_steps=1, logging_steps=1)
    assert [told.rule for told in heard] == ["reference"]
    trainer.train()
    step = trainer.state.log_history[0]
    assert step["preference/margin"] == 0 and step["objective/dpo"] == pytest.approx(math.log(2), abs=1e-6)
    assert torch.equal(parameters(model), start)


def test_a_frozen_copy_shares_what_is_not_trained_and_stays_as_it_was() -> None:
    model = trained_before(adapted()[0])
    reference, rows = reference_of(model, VOCABULARY, shared_out=False), ProbeRows.of((), VOCABULARY)
    before = rows.logp(model)
    shared = {id(p) for p in model.parameters()} & {id(p) for p in reference._model.parameters()}
    assert shared == {id(p) for p in model.parameters() if not p.requires_grad}
    accelerator = type("OneProcess", (), {"device": torch.device("cpu"), "distributed_type": type("No", (), {"name": "NO"})})
    reference.place(accelerator, None)
    trained_before(model)
    assert not torch.equal(rows.logp(model), before) and torch.equal(rows.logp(reference._model), before)


def test_a_fresh_adapter_is_switched_off_and_costs_no_copy() -> None:
    model, _ = adapted()
    with hearing() as heard:
        assert reference_of(model, VOCABULARY, shared_out=False).is_policy
    assert not heard


def test_dropout_stays_where_no_log_probs_are_compared(make_trainer: Callable[..., PostTrainer], tmp_path: Path) -> None:
    for name, kept in (("sft", 0.5), ("dpo", 0.0)):
        model = make_model(attention_dropout=0.5)
        make_trainer(name, model=model)
        assert model[0].model.layers[0].self_attn.attention_dropout == kept


class LooksAtItsWeights(torch.nn.Module):
    """A layer whose numbers follow the dtype of a matrix that another layer multiplies by."""

    def __init__(self, inner: Any, looked_at: Any) -> None:
        super().__init__()
        self.inner, self.looked_at = inner, looked_at

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inner(hidden) * (1 + (self.looked_at.weight.dtype == torch.bfloat16))


@pytest.mark.parametrize("tied", [False, True])
def test_a_reference_under_autocast_has_half_the_memory_and_the_same_bits(tied: bool) -> None:
    """From float32 numbers that are none of bfloat16: each product rounds them alike."""
    model, _ = make_model(dtype="float32", tie_word_embeddings=tied, num_key_value_heads=1, hidden_size=64)
    inputs, mask = ProbeRows.of((), VOCABULARY).inputs()
    reference = reference_of(model, VOCABULARY, shared_out=False, bf16=True)
    kinds = {name: p.dtype for name, p in reference._model.named_parameters()}
    rounded = {name for name, dtype in kinds.items() if dtype == torch.bfloat16}
    assert rounded == {name for name in kinds if "_proj.weight" in name or "_proj.bias" in name} | (
        set() if tied else {"lm_head.weight"}
    )
    for head in ("whole", "two_pass"):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            own = Scorer(head).score(model.eval(), inputs, mask).logp
            assert torch.equal(own, reference.logp(inputs, mask, Scorer(head)))
            states = reference.states(inputs, Divergence())
        assert states.hidden.dtype == torch.float32  # the residual stream is the policy's
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    plain = reference_of(model, VOCABULARY, shared_out=False)
    assert {p.dtype for p in plain._model.parameters()} == {torch.float32}


def test_a_reference_is_held_as_the_policy_is_where_less_would_be_another_model() -> None:
    model, _ = make_model(dtype="float32")
    mlp = model.model.layers[0].mlp
    mlp.act_fn = LooksAtItsWeights(mlp.act_fn, mlp.up_proj)
    reference = reference_of(model, VOCABULARY, shared_out=False, bf16=True)
    assert {p.dtype for p in reference._model.parameters()} == {torch.float32}
