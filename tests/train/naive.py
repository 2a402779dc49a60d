"""The gradient of an optimizer step by the model's own full logits, all rows of the collection in one padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain import Algorithm, policy_gradient_loss
from posttrain.train.collect.collection import Collection


def log_softmax(model: Any, collection: Collection, temperature: float = 1.0) -> Tensor:
    """[B, T, V], with gradient."""
    start = [len(row.prompt) for row in collection.rows]
    width = max(map(len, collection.rows))
    ids = torch.zeros(len(start), width, dtype=torch.int64)
    for i, row in enumerate(collection.rows):
        ids[i, : len(row)] = torch.tensor([*row.prompt, *row.completion])
    whole = (model(input_ids=ids).logits / temperature).log_softmax(-1)
    picked = torch.zeros(*collection.batch.loss_mask.shape, whole.shape[-1], dtype=whole.dtype)
    for i, first in enumerate(start):
        length = min(picked.shape[1], width - first)
        picked[i, :length] = whole[i, first - 1 : first - 1 + length]
    return picked


def of_tokens(logps: Tensor, collection: Collection) -> Tensor:
    """[B, T], of the tokens that stand there."""
    assert collection.batch.tokens is not None
    return logps.gather(-1, collection.batch.tokens[..., None])[..., 0]


def gradient(
    algorithm: Algorithm, model: Any, collection: Collection, rows: Sequence[int], *, old: Tensor, ref: Tensor, at: float
) -> Tensor:
    """Of the step that trains on `rows`; `old` [B, T] and `ref` [B, T, V] are log-probs, `at` is the temperature.

    The collection is as its collector gave it, without advantages.
    """
    own = log_softmax(model, collection, at)
    index = list(rows)
    kl, entropy = (ref.exp() * (ref - own)).sum(-1), -(own.exp() * own).sum(-1)
    batch = collection.batch.replace(ref_logp=of_tokens(ref, collection))
    if algorithm.needs.old_logp:
        batch = batch.replace(old_logp=old)
    if algorithm.needs.collected_entropy != "none":
        batch = batch.replace(entropy=-(ref.exp() * ref).sum(-1))  # the collecting policy is the start model
    batch = algorithm.prepare(batch).take(index)
    model.zero_grad()
    logp = of_tokens(own, collection)[index]
    policy_gradient_loss(algorithm, logp, batch, entropy=entropy[index], kl=kl[index]).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])
