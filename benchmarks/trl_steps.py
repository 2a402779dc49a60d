"""One step of TRL's trainers, forward and backward: its fused head, its collators, and the expression of its loss.

The head is put in by `add_fused_lm_head` with the outputs that the trainer asks for. Nothing of transformers' Trainer, of
accelerate or of the trainers' metrics is timed, and activations are kept (TRL's default is to compute them again): all of it
favours TRL.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from models import PAD, Spec, make_model
from rows import Document, Group
from timing import Contender
from torch import Tensor

BETA, CLIP, STD_EPS = 0.1, 0.2, 1e-4
"""TRL's defaults, and ours."""


def sft(spec: Spec, documents: Sequence[Document], *, packed: bool = False) -> Contender:
    """SFTTrainer's step: rows filled up to the longest, its default, or one packed row (padding_free)."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    rows = [
        {"input_ids": each.prompt + each.completion, "labels": [-100] * len(each.prompt) + each.completion}
        for each in documents
    ]
    collate: Any = DataCollatorForLanguageModeling(pad_token_id=PAD, padding_free=packed)
    batch = _placed(collate(rows), spec)
    model = _with_head(make_model(spec), "log_probs", "entropy", "is_top1")

    def step() -> Tensor:
        output = model(**batch, use_cache=False, fused_lm_head=True)
        loss = -output.log_probs.sum() / output.label_mask.sum()
        loss.backward()
        return loss.detach()

    return Contender(step, list(model.parameters()))


def grpo(spec: Spec, groups: Sequence[Group]) -> Contender:
    """GRPOTrainer's update of one collection: prompts filled up on the left, answers on the right, no KL, loss `dapo`."""
    from trl.trainer.utils import pad

    asked = [torch.tensor(group.prompt) for group in groups for _ in group.answers]
    answers = [torch.tensor(answer) for group in groups for answer in group.answers]
    ids = [pad(asked, padding_value=PAD, padding_side="left"), pad(answers, padding_value=PAD, padding_side="right")]
    masks = [
        pad([torch.ones_like(row) for row in rows], padding_value=0, padding_side=side)
        for rows, side in ((asked, "left"), (answers, "right"))
    ]
    input_ids, attention = (torch.cat(parts, 1).to(spec.device) for parts in (ids, masks))
    mask = masks[1].to(spec.device)
    width = mask.shape[1]
    labels = input_ids.masked_fill(attention == 0, -100)
    labels[:, :-width] = -100
    advantages = _advantages(groups).to(spec.device)[:, None]
    model = _with_head(make_model(spec), "log_probs", "entropy")

    def step() -> Tensor:
        output = model(input_ids=input_ids, attention_mask=attention, labels=labels, fused_lm_head=True)
        logp = output.log_probs[:, -width:]
        ratio = torch.exp(logp - logp.detach())
        gain = torch.min(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
        loss = -(gain * mask).sum() / mask.sum()
        loss.backward()
        return loss.detach()

    return Contender(step, list(model.parameters()))


def dpo(spec: Spec, pairs: Sequence[Group], *, kept: bool = False) -> Contender:
    """DPOTrainer's step with the reference's forward; or with its log-probs kept (precompute_ref_log_probs)."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    rows = [{"prompt_ids": each.prompt, "chosen_ids": each.answers[0], "rejected_ids": each.answers[1]} for each in pairs]
    collate: Any = DataCollatorForPreference(pad_token_id=PAD)
    batch = _placed(collate(rows), spec)
    completion = batch.pop("completion_mask")
    labels = batch["input_ids"].masked_fill(completion == 0, -100)
    model = make_model(spec)
    reference = _with_head(copy.deepcopy(model).eval().requires_grad_(False), "log_probs")
    model = _with_head(model, "log_probs", "entropy", "mean_logits", "is_top1")

    def sums(of: Any) -> Tensor:
        return of(**batch, labels=labels, use_cache=False, fused_lm_head=True).log_probs.sum(1)

    @torch.no_grad()
    def reference_sums() -> Tensor:
        return sums(reference)

    held = reference_sums() if kept else None

    def step() -> Tensor:
        policy = sums(model)
        chosen, rejected = (policy - (reference_sums() if held is None else held)).chunk(2)
        loss = -F.logsigmoid(BETA * (chosen - rejected)).mean()
        loss.backward()
        return loss.detach()

    return Contender(step, list(model.parameters()), against="ours, reference kept" if kept else "ours")


def _with_head(model: Any, *outputs: str) -> Any:
    from trl.trainer.utils import add_fused_lm_head

    add_fused_lm_head(model, outputs=outputs)
    return model


def _placed(batch: Any, spec: Spec) -> dict[str, Any]:
    return {name: value.to(spec.device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def _advantages(groups: Sequence[Group]) -> Tensor:
    """[B]: rewards less their group's mean, by its standard deviation."""
    rewards = [torch.tensor(group.rewards) for group in groups]
    return torch.cat([(each - each.mean()) / (each.std() + STD_EPS) for each in rewards])
