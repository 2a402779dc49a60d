"""Every so many steps the optimizer forgets its moments of all that is trained, and begins as new, its bias correction too.
The reset alone of Scalable Parameter and Memory Efficient Pretraining for LLM (arXiv:2505.22922), which refactors LoRA's
matrices with it (`refactor`); of an optimizer's moments over a change of objectives, Resetting the Optimizer in Deep RL: An
Empirical Study (arXiv:2306.17833). A stage begins with a new optimizer in any case.
"""

from __future__ import annotations

from typing import Any, Literal

from posttrain.errors import SetupError
from posttrain.settings.base import Count
from posttrain.train.updates._update import Named, Update, UpdateConfig, forget, remembered


class MomentumReset(UpdateConfig):
    """Every so many steps the optimizer forgets its moments of all that is trained."""

    forgets = True
    of_moments = True
    name: Literal["momentum_reset"] = "momentum_reset"
    every: Count = 200
    """Steps."""

    def build(self, seed: int) -> Update:
        """Forgets."""
        return _Forgotten(self.every)


class _Forgotten(Update):
    def __init__(self, every: int) -> None:
        self._every = every

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        if step % self._every:
            return
        if not remembered(optimizer):
            raise SetupError(
                "training.update: momentum_reset: the optimizer keeps nothing that could be forgotten: take one that has "
                "moments, or leave the rule out."
            )
        for own in named.values():
            forget(optimizer, own)
