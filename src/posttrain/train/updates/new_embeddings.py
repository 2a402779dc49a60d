"""Every so many steps the input embeddings are drawn anew, N(0, deviation²), and the optimizer forgets them: Improving
Language Plasticity via Pretraining with Active Forgetting (arXiv:2307.01163; from its abstract; its learning rate of the
embeddings starts again with them, which is not done here).
"""

from __future__ import annotations

from typing import Any, Literal

from posttrain.errors import SetupError
from posttrain.settings.base import Count, Positive
from posttrain.train.updates._update import Named, Update, UpdateConfig, forget


class NewEmbeddings(UpdateConfig):
    """Every so many steps the input embeddings are drawn anew, so that the body learns to live with any."""

    of_whole_models = True
    forgets = True
    name: Literal["new_embeddings"] = "new_embeddings"
    every: Count = 1000
    """Steps."""
    deviation: Positive = 0.02
    """Of the numbers that are drawn: what the model's own config calls initializer_range."""

    def build(self, seed: int) -> Update:
        """Draws."""
        return _Drawn(self.every, self.deviation, seed)


class _Drawn(Update):
    def __init__(self, every: int, deviation: float, seed: int) -> None:
        self._every, self._deviation, self._seed = every, deviation, seed

    def start(self, named: Named) -> None:
        if not _embeddings(named):
            raise SetupError("training.update: new_embeddings: no parameter embed_tokens.weight of the model is trained.")
        if not any(name.endswith("lm_head.weight") for name in named):
            raise SetupError(
                "training.update: new_embeddings: the input embeddings are the output layer's matrix too (or that is not "
                "trained), which would be drawn anew with them: take a model whose embeddings are untied."
            )

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        import torch

        if step % self._every:
            return
        for name in _embeddings(named):
            own, generator = named[name], torch.Generator().manual_seed(self._seed * 1_000_003 + step)
            drawn = torch.randn(own.shape, generator=generator, dtype=torch.float64) * self._deviation
            own.detach().copy_(drawn)
            forget(optimizer, own)


def _embeddings(named: Named) -> list[str]:
    return [name for name in named if name.endswith("embed_tokens.weight")]
