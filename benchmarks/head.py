"""The output layer alone: N positions of a trunk's hidden states, half of which carry loss, and a weight [V, H].

Loss: minus the mean log-prob of the targets that carry loss. Every contender gets all positions and says itself which it
reads; both the hidden states and the weight get gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timing import Contender
from torch import Tensor

from posttrain.model.head import Head, in_one_pass, token_logprobs
from posttrain.model.layers import products

OurHead = Callable[[Tensor, Tensor, Tensor, Callable[[Tensor], Tensor]], Tensor]

FLOOR_ROWS = 512
"""Rows that the floor multiplies at a time: of 64, 128, 256 and 512 the fastest on a CPU; 256 take 2 to 8 % longer."""
TRL_OUTPUTS = ("entropy", "is_top1")
"""What TRL's SFTTrainer asks of its head beside log-probs."""
TRL_TILE = 32768
"""Vocabulary entries of a tile: what TRL's trainers pass."""


@dataclass(frozen=True)
class HeadShape:
    """N positions, width H, V entries; `share` of the positions carry loss."""

    positions: int = 1024
    hidden: int = 256
    vocabulary: int = 32768
    share: float = 0.5
    device: str = "cpu"
    dtype: str = "float32"


@dataclass(frozen=True)
class Problem:
    """hidden [N, H] and weight [V, H] with gradient, targets [N], carries [N] bool."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    carries: Tensor


def make_problem(shape: HeadShape) -> Problem:
    """States of unit scale and a weight as models start with, both from one seed."""
    draw = torch.Generator(shape.device).manual_seed(0)
    place: dict[str, Any] = {"generator": draw, "device": shape.device}
    dtype = getattr(torch, shape.dtype)
    hidden = torch.randn(shape.positions, shape.hidden, **place).to(dtype).requires_grad_()
    weight = torch.randn(shape.vocabulary, shape.hidden, **place).mul_(0.02).to(dtype).requires_grad_()
    targets = torch.randint(shape.vocabulary, (shape.positions,), **place)
    carries = torch.rand(shape.positions, **place).argsort() < int(shape.share * shape.positions)
    return Problem(hidden, weight, targets, carries)


def ours_head(hidden: Tensor, weight: Tensor, targets: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """Our head as the estimator calls it, in one pass: L = - Σ w · logp with w = weigh(logp), a constant. hidden [n, H]."""
    carrier, columns = in_one_pass(hidden, Head(weight), targets, lambda columns, _: -weigh(columns))
    return carrier - (weigh(columns) * columns).sum()


def ours_head_for_any_loss(hidden: Tensor, weight: Tensor, targets: Tensor, weigh: Callable[[Tensor], Tensor]) -> Tensor:
    """The same in two phases: log-probs [n] with a gradient for any loss of them, as DPO's."""
    logp = token_logprobs(hidden, Head(weight), targets)[:, 0]
    return -(weigh(logp.detach()) * logp).sum()


def ours(shape: HeadShape, head: OurHead = ours_head) -> Contender:
    """Our head on the rows that carry loss."""
    given = make_problem(shape)
    count = int(given.carries.sum())

    def weigh(logp: Tensor) -> Tensor:
        return torch.full_like(logp, 1 / count)

    def step() -> Tensor:
        loss = head(given.hidden[given.carries], given.weight, given.targets[given.carries], weigh)
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight])


def trl(shape: HeadShape) -> Contender:
    """TRL's fused head as its SFTTrainer calls it: every position on a CPU, those with a label on a GPU."""
    from trl.kernels import ChunkedLogProbFunction

    given = make_problem(shape)
    compact = shape.device != "cpu"
    labels = given.targets.masked_fill(~given.carries, -100)
    outputs = ("log_probs", *TRL_OUTPUTS)

    def step() -> Tensor:
        hidden = given.hidden[given.carries] if compact else given.hidden
        targets = labels[given.carries] if compact else labels.clamp(min=0)
        logp, *_ = ChunkedLogProbFunction.apply(hidden, given.weight, None, targets, 1.0, TRL_TILE, None, 1.0, outputs)  # type: ignore[no-untyped-call]
        placed = logp if compact else logp.masked_fill(~given.carries, 0)
        loss = -placed.sum() / given.carries.sum()
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight])


def naive(shape: HeadShape) -> Contender:
    """Full logits of the rows that carry loss, and log_softmax."""
    given = make_problem(shape)

    def step() -> Tensor:
        logits = F.linear(given.hidden[given.carries], given.weight).float()
        loss = F.nll_loss(logits.log_softmax(-1), given.targets[given.carries])
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight])


def compiled(shape: HeadShape) -> Contender:
    """The naive loss through torch.compile."""
    given = make_problem(shape)

    def loss_of(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.linear(hidden, weight).float(), targets)

    fast = torch.compile(loss_of)

    def step() -> Tensor:
        loss = fast(given.hidden[given.carries], given.weight, given.targets[given.carries])
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight], counted=False)


def has_linear_cross_entropy() -> bool:
    """Whether this torch has it, with options for its chunks."""
    return hasattr(F, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions")


def linear_cross_entropy(shape: HeadShape, *, rows: int = 256) -> Contender:
    """torch's own chunked loss in chunks of `rows`, its fastest setting on a CPU; it gives the mean and nothing else."""
    given = make_problem(shape)
    functional: Any = F
    options = vars(torch.nn)["LinearCrossEntropyOptions"](batch_chunk_size=rows, chunking_method=None)

    def step() -> Tensor:
        rows_with_loss = given.hidden[given.carries]
        loss = functional.linear_cross_entropy(rows_with_loss, given.weight, given.targets[given.carries], options=options)
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight])


def has_liger() -> bool:
    """Whether Liger's kernels are installed."""
    from importlib.util import find_spec

    return find_spec("liger_kernel") is not None


def liger(shape: HeadShape) -> Contender:
    """Liger's fused linear cross entropy, on a GPU."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss  # pyright: ignore[reportMissingImports]

    given = make_problem(shape)
    loss_of = LigerFusedLinearCrossEntropyLoss()

    def step() -> Tensor:
        loss = loss_of(given.weight, given.hidden[given.carries], given.targets[given.carries])
        loss.backward()
        return loss.detach()

    return Contender(step, [given.hidden, given.weight])


def floor(shape: HeadShape, *, rows: int = FLOOR_ROWS, ours: bool = False) -> Contender:
    """The three matrix products that no exact gradient can do without, of the rows that carry loss: 6 n H V operations; by
    torch, or by what `ours` takes for them on this machine.
    """
    given = make_problem(shape)
    picked, weight = given.hidden.detach()[given.carries], given.weight.detach()
    logits = weight.new_empty(min(rows, len(picked)), len(weight))
    d_hidden, d_weight = torch.empty_like(picked), torch.zeros_like(weight)

    def step() -> float:
        d_weight.zero_()
        for chunk in range(0, len(picked), rows):
            part = picked[chunk : chunk + rows]
            if ours:
                z = products.multiply(part, weight, out=logits[: len(part)])
                d_hidden[chunk : chunk + rows] = products.product(z, weight.T)
                products.add_product(d_weight, z, part, add=True)
                continue
            z = torch.mm(part, weight.T, out=logits[: len(part)])
            torch.mm(z, weight, out=d_hidden[chunk : chunk + rows])
            d_weight.addmm_(z.T, part)
        return 0.0

    library = " by oneDNN" if ours and products.here() else ""
    return Contender(step, [], honest=False, note=f"three matrix products{library}, no loss")
