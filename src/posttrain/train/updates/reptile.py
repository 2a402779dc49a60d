"""Every so many steps weights go a part of the way that they have come: weights ← before + rate · (weights - before), where
`before` is what they were that many steps ago. On First-Order Meta-Learning Algorithms (Reptile, arXiv:1803.02999); over
replayed data, Revisiting Replay and Gradient Alignment for Continual Pre-Training of Large Language Models
(arXiv:2508.01908), with every: 500, rate: 0.1. The optimizer's state stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from posttrain.settings.base import Count, Share
from posttrain.train.updates._update import Named, Update, UpdateConfig

if TYPE_CHECKING:
    from torch import Tensor


class Reptile(UpdateConfig):
    """Every so many steps weights go back a part of the way."""

    copies = 1
    name: Literal["reptile"] = "reptile"
    every: Count = 500
    """Steps."""
    rate: Share = 0.1
    """The part of the way that is kept; 1: all of it."""

    def build(self, seed: int) -> Update:
        """Goes back."""
        return _Back(self.every, self.rate)


class _Back(Update):
    def __init__(self, every: int, rate: float) -> None:
        self._every, self._rate, self._before = every, rate, dict[str, "Tensor"]()

    def start(self, named: Named) -> None:
        self._before = {name: own.detach().clone() for name, own in named.items()}

    def on_weights(self, named: Named, optimizer: object, step: int) -> None:
        if step % self._every:
            return
        for name, own in named.items():
            own.detach().lerp_(self._before[name], 1 - self._rate)
            self._before[name].copy_(own.detach())

    def state(self) -> dict[str, Tensor]:
        return self._before

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, own in self._before.items():
            own.copy_(state[name])
