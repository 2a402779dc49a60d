"""OSF keeps its frozen directions under AdamW, which brings them back where peft's projection of gradients stands alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from adapters import adapter
from posttrain import PostTrainer
from posttrain.train.checkpoint import run_state
from tiny import make_model

STEPS = 20


def nothing(_: Any) -> None:
    pass


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_trained_stays_orthogonal_to_what_is_frozen(
    kept: bool, make_trainer: Callable[..., PostTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(run_state, "keep_subspaces", nothing)
    model, tokenizer = make_model(dtype="float32", initializer_range=0.1, adapter=adapter("osf"))
    bases = [p.detach().clone() for name, p in model.named_parameters() if name.endswith("base_layer.weight")]
    first = [p.detach().clone() for name, p in model.named_parameters() if name.endswith("U_low")]
    make_trainer(
        "sft", model=(model, tokenizer), optim="adamw_torch", learning_rate=1e-3, max_steps=STEPS, rows_per_step=3
    ).train()
    last = [p.detach() for name, p in model.named_parameters() if name.endswith("U_low")]
    within = total = 0.0
    for base, before, after in zip(bases, first, last, strict=True):
        frozen = torch.linalg.svd(base)[0][:, :8]  # the paper's U_h, found here again
        within += float((frozen.T @ (after - before)).square().sum())
        total += float((after - before).square().sum())
    share = (within / total) ** 0.5
    assert share < 1e-5 if kept else share > 0.1
