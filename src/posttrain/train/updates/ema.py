"""An exponential moving average of the weights: average = decay · average + (1 - decay) · weights after each step, from the
weights of the start, in float32 at least. It is what is evaluated and what the run leaves; rollouts are sampled from the
weights that are trained. I-LoRA (arXiv:2402.18865) and LAE (arXiv:2303.10070) keep such an average of an adapter beside it,
and read both; here the average alone is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.train.updates._update import Named, Update, UpdateConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class EMA(UpdateConfig):
    """The moving average of the weights is evaluated and left at the end."""

    copies = 1
    name: Literal["ema"] = "ema"
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the average, in each step; 0: it is the weights."""

    def build(self, seed: int) -> Update:
        """Averages."""
        return _Average(self.decay)


class _Average(Update):
    def __init__(self, decay: float) -> None:
        self._decay, self._average = decay, dict[str, "Tensor"]()

    def start(self, named: Named) -> None:
        self._average = {name: own.detach().to(_wide(own), copy=True) for name, own in named.items()}

    def on_weights(self, named: Named, optimizer: object, step: int) -> None:
        for name, own in named.items():
            self._average[name].lerp_(own.detach().to(self._average[name].dtype), 1 - self._decay)

    def shown(self) -> Mapping[str, Tensor]:
        return self._average

    def state(self) -> dict[str, Tensor]:
        return self._average

    def restore(self, state: Mapping[str, Tensor]) -> None:
        for name, own in self._average.items():
            own.copy_(state[name])


def _wide(own: Tensor) -> torch.dtype:
    from torch import float32, promote_types

    return promote_types(own.dtype, float32)
