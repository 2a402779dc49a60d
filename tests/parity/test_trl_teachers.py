"""TRL 1.16's generalised Jensen-Shannon loss, as its GKDTrainer calls it, and its losses of self-distillation have our
gradient.

It compares at a temperature of its own, 1, whatever rollouts are sampled at; ours at that of sampling: the same where it is
1. TRL counts the tokens of the whole step, as ours, where it is told their number.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cases import GROUP, close, differentiate, sample
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


class Given(nn.Module):
    """A model whose logits of the completions are these, after a prompt of one token."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, **_: Any) -> Any:
        return SimpleNamespace(logits=torch.cat([self.logits, torch.zeros_like(self.logits[:, :1])], 1))


def trls_sdpo(logits: Tensor, teacher: Tensor, inputs: dict[str, Any], **options: Any) -> Tensor:
    """What SDPOTrainer makes of rollouts, by its own `compute_loss`."""
    sdpo = pytest.importorskip("trl.experimental.sdpo.sdpo_trainer")
    defaults = {"distillation_is_clip": 2.0, "distillation_topk": None, "distillation_add_tail": False}
    trainer: Any = object.__new__(sdpo.SDPOTrainer)
    vars(trainer).update(
        args=SimpleNamespace(**{**defaults, **options}, teacher_model_kind="base"),
        model=Given(logits),
        teacher_model=Given(teacher),
        accelerator=Accelerator(cpu=True),
        model_kwarg_keys=(),
        temperature=1.0,
        use_teacher_server=False,
        importance_sampling_level="token",
        epsilon_low=0.2,
        epsilon_high=0.2,
        loss_type="grpo",
        current_gradient_accumulation_steps=1,
        _metrics={"train": defaultdict(list)},
    )
    return trainer.compute_loss(trainer.model, inputs)


@pytest.mark.parametrize(
    ("options", "theirs", "all_taught"),
    [
        ({}, {"distillation_mode": "sampled_token", "distillation_alpha": 1.0}, False),
        ({"updates": 4, "ratio_cap": 1.2}, {"distillation_mode": "sampled_token", "distillation_alpha": 1.0}, False),
        ({"distillation_weight": 0.6, "updates": 4}, {"distillation_mode": "sampled_token", "distillation_alpha": 1.0}, True),
        (
            {"distillation_weight": 0.3, "compare": "distributions", "beta": 0.3},
            {"distillation_mode": "full_logits", "distillation_alpha": 0.3},
            True,
        ),
    ],
)
def test_sdpo_has_the_gradient_of_trls_own_loss(options: dict[str, Any], theirs: dict[str, Any], all_taught: bool) -> None:
    """Its mean is over all rows, taught or not: where some are not, ours is the larger by the share of those that are."""
    bound = {} if options.get("compare") else {"kl_max": 1e9}
    drawn = sample(build_algorithm("sdpo", average="sequence_mean", **bound, **options), units=3, width=6)
    mask = torch.arange(6) < torch.randint(1, 7, (3 * GROUP, 1), generator=torch.Generator().manual_seed(1))
    batch = drawn.batch.replace(loss_mask=mask)
    batch = drawn.algorithm.prepare(batch.replace(taught=torch.ones_like(mask[:, 0])) if all_taught else batch)
    logits = drawn.logits.clone().requires_grad_()
    inputs = drawn.inputs(logits)
    _, gradients = differentiate(drawn.algorithm, batch, inputs)
    ours = torch.autograd.grad([*inputs.values()], logits, [gradients[name] for name in inputs])[0]
    one = torch.ones(3 * GROUP, 1, dtype=torch.int64)
    rolled = {
        "prompt_ids": one,
        "prompt_mask": one,
        "completion_ids": drawn.tokens,
        "completion_mask": mask.long(),
        "teacher_input_ids": drawn.tokens,
        "teacher_attention_mask": mask.long(),
        "self_distillation_mask": batch.taught.double() if batch.taught is not None else None,
        "old_per_token_logps": batch.old_logp,
        "advantages": batch.advantage,
    }
    weighed = {"distillation_weight": options.get("distillation_weight", 1.0)}
    weighed |= {"distillation_is_clip": options.get("ratio_cap", 2.0)}
    loss = trls_sdpo(logits, drawn.teacher_logits, rolled, **weighed, **theirs)
    assert batch.taught is not None
    share = float(batch.taught.double().mean())
    assert all_taught or 0.2 < share < 0.8
    close(ours * share, torch.autograd.grad(loss, logits)[0])
