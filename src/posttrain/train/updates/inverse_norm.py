"""Each row of LoRA's B learns the faster the smaller it is: gradient ← gradient / √(|row| + 1 / rate²). ALLoRA: Adaptive
Learning Rate Mitigates LoRA Fatal Flaws (arXiv:2410.09692; from its abstract, the formula recalled), which has no dropout and
no scale alpha / r: set alpha to r. Ours: the norm is of the row of B, and not of B A. An optimizer that divides by the
gradient's own size, as Adam, sees of it what changes over time and between entries.
"""

from __future__ import annotations

from typing import Literal

from posttrain.settings.base import Positive
from posttrain.train.updates._update import Named, Update, UpdateConfig


class InverseNorm(UpdateConfig):
    """Gradients of the rows of LoRA's B are divided by the root of their norms."""

    of_adapters = True
    name: Literal["inverse_norm"] = "inverse_norm"
    rate: Positive = 2.0
    """The factor of a row that is 0."""

    def build(self, seed: int) -> Update:
        """Divides."""
        return _Divided(self.rate)


class _Divided(Update):
    def __init__(self, rate: float) -> None:
        self._rate = rate

    def on_gradients(self, named: Named, step: int) -> None:
        for name, own in named.items():
            if ".lora_B." in name and own.grad is not None:
                own.grad /= (own.detach().norm(dim=1, keepdim=True) + self._rate**-2).sqrt()
