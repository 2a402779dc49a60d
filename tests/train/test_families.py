"""Models of every shape that matters train, with and without an adapter, and are saved as what was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from families_of_models import FAMILIES
from posttrain import PostTrainer
from posttrain.model.proofs.rows import ProbeRows, largest
from posttrain.model.saving import save_model
from tiny import make_model

ROWS = [[60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71], [80, 81, 82]]


@pytest.mark.parametrize("adapted", [False, True], ids=["all", "an adapter"])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_steps_and_what_is_saved_is_what_was_trained(
    family: str, adapted: bool, make_trainer: Callable[..., PostTrainer], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    loaded: Any = AutoModelForCausalLM
    model, (_, tokenizer) = loaded.from_config(FAMILIES[family]), make_model()
    if adapted:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"]))
    start = ProbeRows.of(ROWS, len(tokenizer)).logp(model)
    trainer = make_trainer("dpo", model=(model, tokenizer), max_steps=2, learning_rate=0.3, logging_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["preference/margin"] == pytest.approx(0, abs=1e-4)
    save_model(trainer.model, tokenizer, tmp_path / "final", rows=ROWS)
    rows = ProbeRows.of(ROWS, len(tokenizer))
    again = rows.logp(loaded.from_pretrained(tmp_path / "final"))
    assert largest(again, rows.logp(trainer.model)) < 1e-3 < largest(again, start)
