"""Weights are drawn to where they started, each by how much it matters to rows that are to be kept: Overcoming catastrophic
forgetting in neural networks (EWC, arXiv:1612.00796), the penalty strength / 2 · Σ F (weights - start)², F the diagonal of
the Fisher information: the mean over rows of the squared gradient of a row's log-probability, by the weights of the start.

    empirical: of the row's own tokens;  sampled: of tokens that the model draws in their places, each after what the row has
    before it, whose expectation is the diagonal of the Fisher information of these distributions, once a row.

Ours, as in `l2_sp`, which it is where F is 1: decoupled from the gradient, weights ← weights - rate · strength · F · (weights
- start) after the optimizer's step, with the step's learning rate, and all of the way back where that would be more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from posttrain.settings.base import NonNegative
from posttrain.train.updates._update import LearningConfig, Named, RowGradients, Update, rates

if TYPE_CHECKING:
    from torch import Tensor


class EWC(LearningConfig):
    """Weights are drawn to where they started, the more they matter to rows that are to be kept."""

    copies = 2
    name: Literal["ewc"] = "ewc"
    strength: NonNegative
    """Times learning rate and Fisher information, the share of the way back that a step goes; 0: none."""
    fisher: Literal["empirical", "sampled"] = "empirical"
    """Of the rows' own tokens, or of tokens that the model draws in their places, which takes a forward more for each row."""

    def build(self, seed: int) -> Update:
        """Draws back."""
        return _Drawn(self.strength, own=self.fisher == "sampled")


class _Drawn(Update):
    def __init__(self, strength: float, *, own: bool) -> None:
        self._strength, self._own = strength, own
        self._start, self._fisher = dict[str, "Tensor"](), dict[str, "Tensor"]()

    def start(self, named: Named) -> None:
        self._start = {name: own.detach().clone() for name, own in named.items()}
        self._fisher = {name: own.detach().new_zeros(own.shape) for name, own in named.items()}

    def learn(self, named: Named, rows: RowGradients) -> None:
        for total in self._fisher.values():
            total.zero_()
        for found in rows.of(named, own=self._own):
            for name, gradient in found.items():
                self._fisher[name].addcmul_(gradient, gradient)
        self._fisher = {name: rows.mean(total) for name, total in self._fisher.items()}

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        rate = rates(optimizer)
        for name, own in named.items():
            if own.grad is not None:
                share = (self._fisher[name] * (rate.get(id(own), 0.0) * self._strength)).clamp_(max=1.0)
                own.detach().lerp_(self._start[name], share)

    def state(self) -> dict[str, Tensor]:
        return self._fisher

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, own in self._fisher.items():
            own.copy_(state[name])
