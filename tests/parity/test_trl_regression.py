"""TRL 1.16's loss of A*-PO, as its A2POTrainer computes it, has our gradient by the logits.

TRL takes the mean of the rows of a micro-batch: the same where it is the step, and each row has a token.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cases import close, differentiate, sample
from posttrain import build_algorithm

a2po: Any = pytest.importorskip("trl.experimental.a2po")


def test_a_star_po_has_trls_gradient() -> None:
    drawn = sample(build_algorithm("a_star_po", beta=0.3), units=3, width=6)
    mask = torch.arange(6) < 1 + torch.arange(12)[:, None] % 6
    batch, logits = drawn.batch.replace(loss_mask=mask), drawn.logits.clone().requires_grad_()
    assert batch.ref_logp is not None and batch.baseline is not None
    inputs = drawn.inputs(logits)
    _, gradients = differentiate(drawn.algorithm, drawn.algorithm.prepare(batch), inputs)
    ours = torch.autograd.grad(inputs["logp"], logits, gradients["logp"])[0]

    def model(**_: Any) -> Any:
        return SimpleNamespace(logits=torch.cat([logits, torch.zeros_like(logits[:, :1])], 1))

    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), model_kwarg_keys=(), args=SimpleNamespace(beta2=0.3),
        _metrics={"train": defaultdict(list)},
    )  # fmt: skip
    trainer._get_sequence_logps = partial(a2po.A2POTrainer._get_sequence_logps, trainer)
    given = {
        "input_ids": drawn.tokens, "attention_mask": mask.int(), "logits_to_keep": 6, "rewards": drawn.reward,
        "ref_logps": (batch.ref_logp * mask).sum(-1), "v_star": batch.baseline,
    }  # fmt: skip
    close(ours, torch.autograd.grad(a2po.A2POTrainer.compute_loss(trainer, model, given), logits)[0])
