"""Products of float32 matrices on a CPU, by oneDNN where it is the faster of torch's two libraries.

torch multiplies float32 by MKL, which on AMD's processors uses half of a vector of 512 bits. oneDNN, which is in torch as
well, uses all of it: of 2048 x 256 by 256 x 1024 on two cores of a fifth-generation EPYC 490 GFLOP/s, where MKL has 220. The
one way to it that leaves weights as they are is `torch.ops.mkldnn._linear_pointwise`, a private one of torch's. Where it is
not there, `torch.backends.mkldnn` is switched off, or the processor is another, all is as torch has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd import forward_ad

from posttrain.model.layers.workspace import WORKSPACE

WORK = 2**20
"""Multiplications from which oneDNN is the faster one, by one or two rows not always; below, a call of it costs more than it
saves."""
NARROW = 2
"""Columns, of either matrix or of the product, of which torch is the faster one."""
PLAIN = (Tensor, nn.Parameter)
"""Others are tensors of a class of their own (shared out, rounded), which says what a product with them is."""
TILE = 2048
"""Rows of a large matrix that are multiplied at a time where the product has a place already."""
ALIASED = 1024
"""Rows whose lengths are multiples of it lie on the same lines of a cache: a tile is copied out of them first."""


@cache
def here() -> bool:
    """Whether oneDNN is the faster one on this machine, and torch has it."""
    known = torch.cpu.get_capabilities()
    faster = "AMD" in str(known.get("cpu_name")) and bool(known.get("avx512_f"))
    return faster and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def taken(left: Float[Tensor, "*m k"], right: Float[Tensor, "n k"]) -> bool:
    """Whether left @ right.T is oneDNN's: float32 on a CPU, large enough, `right` dense: others have no fast kernel."""
    if left.numel() * right.shape[0] < WORK or left.dtype != torch.float32 or right.dtype != torch.float32:
        return False
    if type(left) not in PLAIN or type(right) not in PLAIN or right.device.type != "cpu":
        return False
    fits = left.shape[-1] == right.shape[1] and min(right.shape) > NARROW
    dense = right.is_contiguous() or right.T.is_contiguous()
    return fits and dense and here() and bool(torch.backends.mkldnn.enabled)


def product(
    left: Float[Tensor, "*m k"], right: Float[Tensor, "n k"], bias: Float[Tensor, " n"] | None = None
) -> Float[Tensor, "*m n"]:
    """left @ right.T + bias; torch's where a gradient is recorded."""
    if not taken(left, right) or _is_recorded(left, right, bias):
        return nn.functional.linear(left, right, bias)
    added = None if bias is None else bias.contiguous()
    made: Tensor = torch.ops.mkldnn._linear_pointwise(left, right, added, "none", [], "")
    return made


def multiply(left: Float[Tensor, "m k"], right: Float[Tensor, "n k"], *, out: Float[Tensor, "m n"]) -> Tensor:
    """left @ right.T in the place of `out`, some rows of `right` at a time; without a gradient.

    Raises:
        RuntimeError: one would be recorded.
    """
    if not taken(left, right) or _is_recorded(left, right):
        return torch.mm(left, right.T, out=out)
    for part in _tiles(len(right)):
        out[:, part] = product(left, right[part])
    return out


def add_product(total: Float[Tensor, "n k"], left: Float[Tensor, "m n"], right: Float[Tensor, "m k"], *, add: bool) -> None:
    """total = left.T @ right, added to what it was or in its place; some columns of `left` at a time."""
    if not taken(left.T, right.T) or _is_recorded(left, right):
        total.addmm_(left.T, right, beta=int(add))
        return
    for part in _tiles(left.shape[1]):
        rows = left[:, part]
        if left.stride(0) % ALIASED == 0:
            rows = WORKSPACE.empty(*rows.shape, dtype=rows.dtype, device=rows.device).copy_(rows)
        (total[part].add_ if add else total[part].copy_)(product(rows.T, right.T))


def _is_recorded(*given: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given)


def _asks_for_more() -> bool:
    """Whether it is for more than a forward pass and its gradient: transforms of torch.func, forward derivatives, traces,
    or other dtypes by autocast.
    """
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    return transformed or torch._C._get_tracing_state() is not None or torch.is_autocast_enabled("cpu")


def _tiles(length: int) -> Iterator[slice]:
    return (slice(start, start + TILE) for start in range(0, length, TILE))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_states, of_weight, _ = ctx.needs_input_grad
        ctx.save_for_backward(states if of_weight else None, weight if of_states else None)
        return product(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, weight = ctx.saved_tensors
        d_states = d_weight = d_bias = None
        rows = grad.flatten(0, -2)
        if ctx.needs_input_grad[0]:
            d_states = product(grad, weight.T)
        if ctx.needs_input_grad[1]:
            d_weight = _of_rows(rows, states.flatten(0, -2))
        if ctx.needs_input_grad[2]:
            d_bias = rows.sum(0)
        return d_states, d_weight, d_bias


def _of_rows(left: Float[Tensor, "m n"], right: Float[Tensor, "m k"]) -> Float[Tensor, "n k"]:
    """left.T @ right: oneDNN's columns are the longer side, of which it makes more at once."""
    return product(left.T, right.T) if left.shape[1] <= right.shape[1] else product(right.T, left.T).T


class Linear(nn.Linear):
    """torch's layer with the same parameters, computed by `product`: other than torch's in the last bits."""

    def forward(self, input: Float[Tensor, "*m k"]) -> Float[Tensor, "*m n"]:
        """See `torch.nn.Linear`."""
        if torch.compiler.is_compiling() or _asks_for_more() or input.dim() < 2 or not taken(input, self.weight):
            return super().forward(input)
        if not torch.is_grad_enabled():
            return product(input, self.weight, self.bias)
        made: Tensor = _Linear.apply(input, self.weight, self.bias)
        return made


def take_products(model: nn.Module) -> None:
    """The linear layers of a model are computed by `product` from now on, where that is oneDNN's on this machine."""
    if here():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear
