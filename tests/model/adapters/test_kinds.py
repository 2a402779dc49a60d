"""Adapters of every kind: what a model is with a fresh one, and that engines and folders get the model with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM

from adapters import CASES, OPTIONS, adapter, moved
from posttrain.errors import SetupError
from posttrain.model.adapters.merging import own_names
from posttrain.model.load import load
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.start import reference_of
from posttrain.model.saving import save_model
from posttrain.model.scoring import Scorer
from posttrain.model.weights import described_weights, engine_weights
from posttrain.settings.adapters.kinds import BY_NAME
from posttrain.settings.model import Adapter, ModelConfig
from posttrain.telling import hearing
from tiny import make_model

SOME = ("dora", "ia3", "ln_tuning", "oft", "vera", "osf", "pissa", "rslora by olora", "a whole head beside", "tokens beside")
NATS = 5e-6


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(60, 90)[None]).logits.double().log_softmax(-1)


def small(case: str | None, **fields: Any) -> tuple[Any, Any]:
    return make_model(dtype="float32", initializer_range=0.1, adapter=None if case is None else adapter(case), **fields)


@pytest.mark.parametrize("case", SOME)
def test_a_fresh_one_changes_nothing_and_a_trained_one_is_in_the_weights(case: str) -> None:
    plain = small(None)[0]
    model, _ = small(case)
    torch.testing.assert_close(logits(model), logits(plain), rtol=0, atol=NATS)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved(model)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and trained <= own_names(model)
    trained = {
        name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.requires_grad
    }  # some several times
    after = logits(model)
    assert float((after - logits(plain)).abs().max()) > 1e-3
    sent = dict(engine_weights(model))
    assert [(one.name, one.dtype, one.shape) for one in described_weights(model)] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent.items()
    ]
    plain.load_state_dict(sent, strict=True)
    torch.testing.assert_close(logits(plain), after, rtol=0, atol=NATS)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed <= trained


@pytest.mark.parametrize("case", ["pissa", "oft"])
def test_the_reference_is_the_start_and_stays(case: str) -> None:
    """A copy where the base was changed, which shares what is frozen; else the model without its adapter."""
    plain, (model, tokenizer) = small(None)[0], small(case)
    with hearing() as heard:
        reference = reference_of(model, len(tokenizer), shared_out=False)
    assert reference.is_policy == (case == "oft") and len(heard) == (case == "pissa")
    held = {id(p) for p in reference._model.parameters()} - {id(p) for p in model.parameters()}
    assert len(held) == (0 if case == "oft" else sum(p.requires_grad for p in model.parameters()))
    reference.place(Accelerator(cpu=True), None)
    moved(model)
    rows = ProbeRows.of((), len(tokenizer))
    inputs, mask = rows.inputs()
    there = reference.logp(inputs, mask, Scorer("whole"))[mask]
    torch.testing.assert_close(there, rows.logp(plain), rtol=0, atol=NATS)
    assert float((there - rows.logp(model)).abs().max()) > 1e-3


def test_what_peft_warns_of_is_told() -> None:
    with hearing() as heard:
        make_model(dtype="float32", adapter=Adapter(kind="oft", options={"oft_block_size": 5}))
    assert any("oft_block_size" in one.sentence for one in heard)


def test_every_kind_has_a_case() -> None:
    assert OPTIONS.keys() == BY_NAME.keys() and set(SOME) <= CASES.keys()


@pytest.mark.parametrize("case", ["dora", "pissa", "ranks", "rslora by olora", "ia3"])
@pytest.mark.filterwarnings("ignore:Model has `tie_word")
def test_final_and_the_adapter_beside_it_are_one_model(case: str, tmp_path: Path) -> None:
    base, tokenizer = small(None)
    save_model(base, tokenizer, tmp_path / "base")
    start = ModelConfig(name=str(tmp_path / "base"), adapter=adapter(case))
    model, _ = load(start, seed=3)
    moved(model)
    save_model(model, tokenizer, tmp_path / "final", rows=[[60, 61, 62]])
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    torch.testing.assert_close(logits(whole), logits(model), rtol=0, atol=NATS)
    further = Adapter.model_validate({"continue": str(tmp_path / "final" / "adapter")})
    again, _ = load(start.model_copy(update={"adapter": further}), seed=4)
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=NATS)
    assert any(p.requires_grad for p in again.parameters())


def test_what_cannot_be_gone_on_with_is_refused(tmp_path: Path) -> None:
    """An init by random numbers leaves in a checkpoint's adapter no trace of what it took out of the base."""
    base, tokenizer = small(None)
    save_model(base, tokenizer, tmp_path / "base")
    model, _ = load(ModelConfig(name=str(tmp_path / "base"), adapter=adapter("pissa_niter_4")), seed=0)
    model.save_pretrained(tmp_path / "checkpoint")
    with pytest.raises(SetupError, match="plain LoRA"):
        load(ModelConfig(name=str(tmp_path / "checkpoint")), seed=0)
    config = tmp_path / "checkpoint" / "adapter_config.json"
    config.write_text(json.dumps({"peft_type": "PREFIX_TUNING", "num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}))
    further = Adapter.model_validate({"continue": str(tmp_path / "checkpoint")})
    with pytest.raises(SetupError, match="virtual tokens"):
        load(ModelConfig(name=str(tmp_path / "base"), adapter=further), seed=0)
    nowhere = Adapter.model_validate({"continue": str(tmp_path / "nowhere")})
    with pytest.raises(SetupError, match=r"model\.adapter\.continue: there is no adapter"):
        load(ModelConfig(name=str(tmp_path / "base"), adapter=nowhere), seed=0)
