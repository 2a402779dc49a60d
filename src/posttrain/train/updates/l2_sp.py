"""Weights are drawn to where they started, Explicit Inductive Bias for Transfer Learning with Convolutional Networks
(L2-SP, arXiv:1802.01483): the penalty strength / 2 · |weights - start|². Ours: decoupled from the gradient, as AdamW's decay
is, weights ← weights - rate · strength · (weights - start) after the optimizer's step, with the step's learning rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from posttrain.settings.base import NonNegative
from posttrain.train.updates._update import Named, Update, UpdateConfig, rates

if TYPE_CHECKING:
    from torch import Tensor


class L2SP(UpdateConfig):
    """Weights are drawn to where they started, as weight decay draws them to 0."""

    copies = 1
    name: Literal["l2_sp"] = "l2_sp"
    strength: NonNegative
    """Times the learning rate, the share of the way back that a step goes; 0: none."""

    def build(self, seed: int) -> Update:
        """Draws back."""
        return _Drawn(self.strength)


class _Drawn(Update):
    def __init__(self, strength: float) -> None:
        self._strength, self._start = strength, dict[str, "Tensor"]()

    def start(self, named: Named) -> None:
        self._start = {name: own.detach().clone() for name, own in named.items()}

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        rate = rates(optimizer)
        for name, own in named.items():
            if own.grad is not None:
                own.detach().lerp_(self._start[name], min(rate.get(id(own), 0.0) * self._strength, 1.0))
