"""The proofs of a start: no noise where log-probs are compared, and a reference that is what the policy is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from posttrain.errors import SetupError
from posttrain.model.adapters.merging import own_names
from posttrain.model.frozen.reference import Reference
from posttrain.model.proofs.rows import ProbeRows, agree, largest
from posttrain.model.scoring import Scorer, computing, output_head
from posttrain.settings.model import MovingReference
from posttrain.telling import tell

NOISE = re.compile(r"(drop|jitter|noise)(?!.*(type|mode|seed))", re.IGNORECASE)
"""Names under which models keep rates of noise."""
PASSES = 4  # in training, of which each draws its own noise
NOTHING = 1e-7  # nats: two passes of one model are equal to the last bit, but for kernels that sum in any order


def switch_off_noise(model: Any, vocabulary: int) -> None:
    """Makes training score rows as evaluation does: every rate of noise, dropout above all, is 0, and what was not is told.

    Raises:
        SetupError: the model's log-probs in training are still others than in evaluation.
    """
    rows = ProbeRows.of((), vocabulary)
    told = Counter(f"{name} {rate:g}" for module in model.modules() for name, rate in _silenced(module))
    if _noise(model, rows) > NOTHING:
        configs = {id(one): one for module in model.modules() if (one := getattr(module, "config", None)) is not None}
        for config in configs.values():
            told.update(f"{name} {rate:g} of its config, which is saved so" for name, rate in _silenced(config))
        if (left := _noise(model, rows)) > NOTHING:
            raise SetupError(
                f"{type(model).__name__} gives other log-probs in training than in evaluation (by up to {left:.3g} nats), "
                "from noise that no rate of its modules or its config says. The algorithm compares log-probs: take another "
                "model, or sft."
            )
    if told:
        tell("noise", f"Off, for the algorithm compares log-probs: {', '.join(told)}.")


def _silenced(owner: Any) -> Iterator[tuple[str, float]]:
    """Sets the rates of a module, or of a config, to 0; those that were not."""
    kind = type(owner).__name__
    if isinstance(owner, torch.nn.modules.dropout._DropoutNd) and owner.p:  # pyright: ignore[reportPrivateUsage]
        yield kind, owner.p
        owner.p = 0.0
    for name, rate in list(vars(owner).items()):
        if NOISE.search(name) and isinstance(rate, float) and rate:
            yield name, rate
            setattr(owner, name, 0.0)


def _noise(model: Any, rows: ProbeRows) -> float:
    """The largest difference between a log-prob in evaluation and in training; the generators stay where they were."""
    device = output_head(model).weight.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        still = rows.logp(model)
        return max(largest(rows.logp(model, training=True), still) for _ in range(PASSES))


def reference_of(
    model: Any, vocabulary: int, *, shared_out: bool, moves: MovingReference | None = None, bf16: bool = False
) -> Reference:
    """The frozen start, computed as the policy is: the policy with its adapter switched off where that is what it starts
    from, else a copy, in less memory where that is the same to the last bit.

    Args:
        model: the policy, before it is spread over ranks and trained.
        vocabulary: token ids are below it.
        shared_out: the parameters will be spread over ranks.
        moves: how it follows the policy.
        bf16: products are computed in bfloat16, by autocast.

    Raises:
        SetupError: the log-ratio is not 0; or it is to follow parameters that no process has whole.
    """
    rows = ProbeRows.of((), vocabulary)
    moving = moves is not None and moves.refresh > 0
    if moving and shared_out:
        raise SetupError("reference.refresh: it follows a policy of which each process has the whole: take mode ddp.")
    rounded = bf16 and not shared_out and not hasattr(model, "peft_config") and not moving
    reference = Reference(model, shared_out=shared_out, rounded=rounded, moves=moves)
    if rounded and largest(*_both(model, reference, rows, bf16=bf16)) > 0:
        reference = Reference(model, shared_out=shared_out)
    if reference.is_policy and (_trains_base(model) or largest(*_both(model, reference, rows, bf16=bf16)) > 0):
        reference = Reference(model, shared_out=shared_out, apart=True)
        tell(
            "reference",
            "Without its adapter the model is not, or would not stay, what the policy starts from (the adapter was trained "
            "before, begins elsewhere, has changed the base, trains some of it, or adds and subtracts the same): the "
            "reference is a frozen copy of the model with it.",
        )
    own, there = _both(model, reference, rows, bf16=bf16)
    if not agree(own, there, model):
        raise SetupError(
            f"The reference is not what the policy starts from: a log-ratio is {largest(own, there):.3g}, not 0."
        )
    return reference


def _trains_base(model: Any) -> bool:
    """Whether something of the base is trained beside the adapter, as biases are: it would move the reference."""
    own = own_names(model)
    return any(p.requires_grad and name not in own for name, p in model.named_parameters())


def _both(model: Any, reference: Reference, rows: ProbeRows, *, bf16: bool) -> tuple[Tensor, Tensor]:
    """Log-probs under the policy and under its reference."""
    inputs, mask = rows.inputs()
    device, training = output_head(model).weight.device, model.training
    model.eval()
    with computing(model, bf16=bf16):
        there = reference.logp(inputs.to(device), mask.to(device), Scorer("whole")).cpu()[mask]
    model.train(training)
    return rows.logp(model, bf16=bf16), there
