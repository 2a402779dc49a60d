"""TRL 1.16's generalised Jensen-Shannon loss, as its GKDTrainer calls it, and its losses of self-distillation have our
gradient.

It compares at a temperature of its own, 1, whatever rollouts are sampled at; ours at that of sampling: the same where it is
1. TRL counts the tokens of the whole step, as ours, where it is told their number.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cases import close, differentiate, sample
from posttrain import build_algorithm

gkd: Any = pytest.importorskip("trl.experimental.gkd")


@pytest.mark.parametrize(
    ("name", "options", "beta", "temperature"),
    [
        *(("gkd", {"beta": beta}, beta, 1.0) for beta in (0.0, 0.3, 1.0)),
        ("kd", {"alpha": 1.0, "temperature": 2.5}, 0.0, 2.5),
    ],
)
def test_generalised_jsd_has_trls_gradient(name: str, options: dict[str, float], beta: float, temperature: float) -> None:
    """By the logits; at another temperature than 1 as `kd` has it, whose factor T² is its own."""
    drawn = sample(build_algorithm(name, **options), units=3, width=6)
    logits = drawn.logits.clone().requires_grad_()
    inputs = drawn.inputs(logits)
    _, gradients = differentiate(drawn.algorithm, drawn.algorithm.prepare(drawn.batch), inputs)
    ours = torch.autograd.grad([*inputs.values()], logits, [gradients[name] for name in inputs])[0]
    labels = torch.where(drawn.batch.loss_mask, drawn.tokens, -100)
    theirs = gkd.GKDTrainer.generalized_jsd_loss(
        logits, drawn.teacher_logits, labels, beta=beta, temperature=temperature, num_items_in_batch=int((labels >= 0).sum())
    )
    close(ours, temperature**2 * torch.autograd.grad(theirs, logits)[0])


@pytest.mark.parametrize(
    ("options", "loss", "alpha"),
    [
        ({"beta": 0.3}, "full_logit", 0.3),
        ({"beta": 0.0}, "full_logit", 0.0),
        ({"beta": 1.0}, "full_logit", 1.0),
        ({"compare": "tokens", "kl_max": 1e9}, "sampled_token", 1.0),
    ],
)
def test_self_distillation_has_trls_gradient(options: dict[str, Any], loss: str, alpha: float) -> None:
    """Token by token, as its SDFTTrainer calls it; its mean over answers of means over tokens is made a mean over tokens."""
    losses = pytest.importorskip("trl.experimental.sdft.loss_utils")
    drawn = sample(build_algorithm("sdft", **options), units=3, width=6)
    logits = drawn.logits.clone().requires_grad_()
    inputs = drawn.inputs(logits)
    _, gradients = differentiate(drawn.algorithm, drawn.algorithm.prepare(drawn.batch), inputs)
    ours = torch.autograd.grad([*inputs.values()], logits, [gradients[name] for name in inputs])[0]
    theirs = getattr(losses, f"compute_{loss}_self_distillation_loss")
    sampled = (drawn.tokens,) if loss == "sampled_token" else ()
    each = theirs(logits, drawn.teacher_logits, *sampled, distillation_alpha=alpha)
    mask = drawn.batch.loss_mask
    close(ours, torch.autograd.grad((each * mask).sum() / mask.sum(), logits)[0])
