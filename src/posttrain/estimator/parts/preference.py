"""Losses of pairs and larger units, or of completions with a label: of one function both the advantage and the native
objective are made, so that no sign and no factor can be wrong in one of them.

    L = mean over pairs of loss(chosen, rejected)          A_it = - d loss / d logp_it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from posttrain.estimator.view import View, counted, row_mean, row_sum


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

    @property
    def weight(self) -> Float[Tensor, "P 1"]:
        """exp of the mean over tokens of log p - log sum p^2: how much the policy would write this. What it writes itself has
        1 on average where that is one token, and less where it is several (a mean of logs: Jensen).
        """
        return row_mean(self.view, self.view.logp - self.view.require("collision")).detach().exp()

    @property
    def label(self) -> Float[Tensor, "P 1"]:
        """1 for a completion that is wanted, -1 for one that is not; 0 where no token is selected."""
        return row_mean(self.view, self.view.require("advantage"))


Loss = Callable[..., Tensor]
"""(the chosen completions, the rejected ones) -> [P, 1]; of larger units, (the first ones, the second ones, …) -> [U, 1]; of
completions alone, (the completions) -> [B, 1]."""


def pull(view: View, *, loss: Loss) -> Float[Tensor, "B T"]:
    """A = - d loss / d logp, by autograd on a copy of the detached log-probs."""
    return _pull(view, lambda seen: loss(*_sides(seen)))


def objective(view: View, *, loss: Loss) -> Float[Tensor, "P 1"]:
    """The loss of each pair; 0 for one without a selected token, which is not in N."""
    return torch.where(counted(view), loss(*_sides(view)), 0.0)


def row_pull(view: View, *, loss: Loss) -> Float[Tensor, "B T"]:
    """The same of a loss of single completions."""
    return _pull(view, lambda seen: loss(Completions(seen)))


def row_objective(view: View, *, loss: Loss) -> Float[Tensor, "B 1"]:
    """The loss of each row; 0 for one without a selected token, which is not in N."""
    return torch.where(view.select.any(-1, keepdim=True), loss(Completions(view)), 0.0)


def label_accuracy(view: View) -> Float[Tensor, "B 1"]:
    """1 where a completion has become likelier and is wanted, or less likely and is not; one half where it has not moved."""
    one = Completions(view)
    moved = one.label * one.gain.sign()
    return torch.where(view.select.any(-1, keepdim=True), (1 + moved) / 2, 0.0)


def anchor(view: View) -> Float[Tensor, "B 1"]:
    """The step's anchor, for each row."""
    return torch.where(view.select.any(-1, keepdim=True), view.require("anchor"), 0.0)


def _pull(view: View, loss: Callable[[View], Tensor]) -> Float[Tensor, "B T"]:
    with torch.enable_grad():  # weights are made without
        logp = view.logp.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(dataclasses.replace(view, logp=logp)).sum(), logp)
    return -slope


def _sides(view: View) -> list[Completions]:
    if view.unit == 1:
        view.require("chosen")
    fields = {field.name: getattr(view, field.name) for field in dataclasses.fields(view)}
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}

    def at(place: int) -> Completions:
        return Completions(dataclasses.replace(view, **{name: value[place :: view.unit] for name, value in tensors.items()}))

    return [at(place) for place in range(view.unit)]
