"""A model as training starts from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from posttrain.distributed.sharding import shard
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.layout.make import Rows, make_layout
from posttrain.model.load import untie
from posttrain.model.proofs.start import reference_of, switch_off_noise
from posttrain.model.reference import Reference
from posttrain.model.scoring import output_head
from posttrain.model.trials import tell_of_plain_attention, usable_head, usable_layout, usable_varlen
from posttrain.settings.training import HeadPath
from posttrain.train.options import Execution


@dataclass(frozen=True, slots=True)
class Ready:
    """How a model's tokens are scored, how its rows are laid out, and what it started from, where that is compared."""

    head: HeadPath
    layout: Rows
    reference: Reference | None


def make_ready(
    model: Any,
    tokenizer: Any,
    algorithm: Algorithm,
    execution: Execution,
    *,
    device: torch.device,
    bf16: bool,
    deepspeed: bool,
) -> Ready:
    """Gives an adapted head a matrix of its own, takes noise out where log-probs are compared, copies what is the reference,
    and spreads the model over the ranks that share it.

    It will be trained on a `device`. Products are computed in bfloat16 where `bf16` says so, by autocast, or by a cast of the
    whole model under `deepspeed`.

    Raises:
        SetupError: the algorithm compares log-probs that cannot be compared, or whole distributions of an unsuitable head.
    """
    vocabulary, distributed = len(tokenizer), execution.distributed
    untie(model)
    if algorithm.needs.exact_logp:
        switch_off_noise(model, vocabulary)
    head = usable_head(model, execution.head, vocabulary)
    if head == "whole" and algorithm.needs.full_kl:
        raise SetupError(f"{algorithm.name} compares whole distributions: an output layer that is a matrix is needed.")
    tell_of_plain_attention(model, device=device.type, bf16=bf16)
    name = usable_layout(model, execution.layout, vocabulary)
    computed = torch.bfloat16 if bf16 else output_head(model).weight.dtype
    varlen = usable_varlen(model, name, vocabulary, device=device, dtype=computed)
    layout = make_layout(name, pad_id=tokenizer.pad_token_id or 0, varlen=varlen)
    shared_out = distributed is not None and (distributed.shares_parameters or distributed.by_deepspeed)
    reference = None
    if algorithm.needs.reference:
        reference = reference_of(model, vocabulary, shared_out=shared_out, bf16=bf16 and not deepspeed)
    if distributed is not None:
        shard(model, distributed, bf16=bf16)
    return Ready(head, layout, reference)
