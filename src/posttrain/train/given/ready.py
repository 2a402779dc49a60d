"""A model as training starts from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from posttrain.distributed.sharding import shard
from posttrain.errors import SetupError
from posttrain.estimator.algorithm import Algorithm
from posttrain.model.frozen.frozen import Frozen
from posttrain.model.frozen.reference import Reference
from posttrain.model.frozen.teacher import teacher_of
from posttrain.model.layers.products import take_products
from posttrain.model.layout.make import Rows, make_layout
from posttrain.model.load import untie
from posttrain.model.proofs.start import reference_of, switch_off_noise
from posttrain.model.proofs.trials import (
    tell_of_plain_attention,
    tell_of_plain_head,
    usable_head,
    usable_layout,
    usable_varlen,
)
from posttrain.model.scoring import output_head
from posttrain.rollout.vllm.teacher import ServedTeacher
from posttrain.settings.training import HeadPath
from posttrain.train.options import Execution


@dataclass(frozen=True, slots=True)
class Ready:
    """How a model's tokens are scored, how its rows are laid out, what it started from, where that is compared, and its
    teacher, where it has one.
    """

    head: HeadPath
    layout: Rows
    reference: Reference | None
    teacher: Frozen | None


def make_ready(
    model: Any,
    tokenizer: Any,
    algorithm: Algorithm,
    execution: Execution,
    *,
    teachers: Mapping[str, Any],
    device: torch.device,
    bf16: bool,
    deepspeed: bool,
) -> Ready:
    """Gives an adapted head a matrix of its own and linear layers this machine's products, takes noise out where log-probs
    are compared, copies what is the reference, and spreads the model over the ranks that share it.

    `teachers` are models by name, of which the algorithm takes one if it takes any.
    It will be trained on a `device`. Products are computed in bfloat16 where `bf16` says so, by autocast, or by a cast of the
    whole model under `deepspeed`.

    Raises:
        SetupError: the algorithm compares log-probs that cannot be compared, or whole distributions of an unsuitable head.
    """
    vocabulary, distributed = len(tokenizer), execution.distributed
    loaded = [one for one in teachers.values() if isinstance(one, torch.nn.Module)]
    untie(model)
    if device.type == "cpu":
        for one in (model, *loaded):
            take_products(one)
    if algorithm.needs.exact_logp:
        switch_off_noise(model, vocabulary)
    head = usable_head(model, execution.head, vocabulary)
    if head == "whole" and algorithm.needs.compares_distributions:
        raise SetupError(f"{algorithm.name} compares whole distributions: an output layer that is a matrix is needed.")
    tell_of_plain_attention(model, device=device.type, bf16=bf16)
    name, teacher = usable_layout(model, execution.layout, vocabulary), None
    full = algorithm.needs.teacher == "full"
    for called, one in teachers.items():
        if isinstance(one, ServedTeacher):
            check_served(called, full=full)
            teacher = one
            continue
        teacher = teacher_of(called, one, model, vocabulary=vocabulary, head=execution.head, full=full)
        name = usable_layout(one, name, vocabulary)
    computed = torch.bfloat16 if bf16 else output_head(model).weight.dtype
    tell_of_plain_head(head, device=device, dtype=computed)
    models = (model, *loaded)
    varlen = all(usable_varlen(one, name, vocabulary, device=device, dtype=computed) for one in models)
    layout = make_layout(name, pad_id=tokenizer.pad_token_id or 0, varlen=varlen)
    shared_out = distributed is not None and (distributed.shares_parameters or distributed.by_deepspeed)
    reference = None
    if execution.reference is not None and execution.reference.refresh and not algorithm.needs.reference:
        raise SetupError(f"{algorithm.name} compares with no start model that could be moved: leave reference= out.")
    if algorithm.needs.reference:
        reference = reference_of(
            model, vocabulary, shared_out=shared_out, moves=execution.reference, bf16=bf16 and not deepspeed
        )
    if distributed is not None:
        shard(model, distributed, bf16=bf16)
    return Ready(head, layout, reference, teacher)


def check_served(name: str, *, full: bool) -> None:
    """Refuses what a server cannot do.

    Raises:
        SetupError: whole distributions are to be compared.
    """
    if full:
        raise SetupError(
            f"The teacher {name} is compared by whole distributions, and a server gives log-probs of tokens: load it by its "
            "name, or take an algorithm that compares sampled tokens alone (`needs.teacher` of it is logp)."
        )
