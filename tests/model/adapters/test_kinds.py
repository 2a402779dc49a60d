"""Adapters of every kind: what a model is with a fresh one, and that engines and folders get the model with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from adapters import CASES, NATS, OPTIONS, adapter, assert_folders, assert_weights, moved, small
from posttrain.errors import SetupError
from posttrain.model.load import load
from posttrain.model.proofs.rows import ProbeRows
from posttrain.model.proofs.start import reference_of
from posttrain.model.saving import save_model
from posttrain.model.scoring import Scorer
from posttrain.settings.adapters.kinds import BY_NAME
from posttrain.settings.model import Adapter, ModelConfig
from posttrain.telling import hearing
from tiny import make_model

SOME = ("dora", "ia3", "ln_tuning", "oft", "vera", "osf", "pissa", "rslora by olora", "a whole head beside", "tokens beside")


@pytest.mark.parametrize("case", SOME)
def test_a_fresh_one_changes_nothing_and_a_trained_one_is_in_the_weights(case: str) -> None:
    assert_weights(case)


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
    assert_folders(case, tmp_path)


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
