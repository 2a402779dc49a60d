"""Losses of pairs: of one function both the advantage and the native objective are made, so that no sign and no factor can
be wrong in one of them.

    L = mean over pairs of loss(chosen, rejected)          A_it = - d loss / d logp_it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.view import View, row_sum


@dataclass(frozen=True, slots=True)
class Completions:
    """The chosen completions of P pairs, or the rejected ones, as a loss may look at them."""

    view: View

    @property
    def length(self) -> Float[Tensor, "P 1"]:
        """|y|: the selected tokens, at least 1."""
        return self.view.select.sum(-1, keepdim=True).clamp(min=1).to(self.view.logp.dtype)

    @property
    def logp(self) -> Float[Tensor, "P 1"]:
        """log pi(y), a sum over tokens."""
        return row_sum(self.view, self.view.logp)

    @property
    def mean(self) -> Float[Tensor, "P 1"]:
        """log pi(y) / |y|."""
        return self.logp / self.length

    @property
    def gains(self) -> Float[Tensor, "P T"]:
        """log pi - log pi_ref of each token."""
        return self.view.logp - self.view.require("ref_logp")

    @property
    def gain(self) -> Float[Tensor, "P 1"]:
        """log pi(y) - log pi_ref(y)."""
        return row_sum(self.view, self.gains)


Loss = Callable[..., Tensor]
"""(the chosen completions, the rejected ones) -> [P, 1]."""


def pull(view: View, *, loss: Loss) -> Float[Tensor, "B T"]:
    """A = - d loss / d logp, by autograd on a copy of the detached log-probs."""
    with torch.enable_grad():  # weights are made without
        logp = view.logp.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(*_sides(dataclasses.replace(view, logp=logp))).sum(), logp)
    return -slope


def objective(view: View, *, loss: Loss) -> Float[Tensor, "P 1"]:
    """The loss of each pair; 0 for one without a selected token, which is not in N."""
    rows = view.select.any(-1, keepdim=True)
    return torch.where(rows[0::2] | rows[1::2], loss(*_sides(view)), 0.0)


def _sides(view: View) -> list[Completions]:
    view.require("chosen")  # rows 2i and 2i + 1 are a pair
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return [
        Completions(dataclasses.replace(view, **{name: value[side::2] for name, value in tensors.items()})) for side in (0, 1)
    ]
