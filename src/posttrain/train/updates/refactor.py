"""Every so many steps LoRA's B A = U S Vᵀ is written anew as B = U √S, A = √S Vᵀ, and the optimizer forgets both: Scalable
Parameter and Memory Efficient Pretraining for LLM: Recent Algorithmic Advances and Benchmarking (weight refactorization and
momentum reset, arXiv:2505.22922; the period is ours). What the model computes stays as it is.
"""

from __future__ import annotations

from typing import Any, Literal

from posttrain.settings.base import Count
from posttrain.train.updates._update import Named, Update, UpdateConfig, forget


class Refactor(UpdateConfig):
    """Every so many steps LoRA's matrices are balanced, and the optimizer forgets them."""

    of_adapters = True
    forgets = True
    name: Literal["refactor"] = "refactor"
    every: Count = 200
    """Steps."""

    def build(self, seed: int) -> Update:
        """Balances."""
        return _Balanced(self.every)


class _Balanced(Update):
    def __init__(self, every: int) -> None:
        self._every = every

    def on_weights(self, named: Named, optimizer: Any, step: int) -> None:
        import torch

        if step % self._every:
            return
        for name, b in named.items():
            if ".lora_B." not in name or (a := named.get(name.replace(".lora_B.", ".lora_A."))) is None or b.dim() != 2:
                continue
            left, upper = torch.linalg.qr(b.detach().double())
            right, lower = torch.linalg.qr(a.detach().double().T)
            u, sizes, v = torch.linalg.svd(upper @ lower.T)
            b.detach().copy_(left @ u * sizes.sqrt())
            a.detach().copy_((right @ v.T * sizes.sqrt()).T)
            forget(optimizer, a)
            forget(optimizer, b)
