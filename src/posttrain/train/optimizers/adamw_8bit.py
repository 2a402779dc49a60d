"""AdamW with moments of 8 bits (arXiv:2110.02861), of the package bitsandbytes; those of embeddings are of 32."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class AdamW8bit(OptimizerConfig):
    """AdamW whose moments are of 8 bits, block by block (bitsandbytes)."""

    package: ClassVar[tuple[str, str] | None] = ("bitsandbytes", "bitsandbytes")
    whole_matrices: ClassVar[bool] = True
    reads_betas: ClassVar[bool] = True
    name: Literal["adamw_8bit"] = "adamw_8bit"

    def state(self, number: int) -> float:
        """See `OptimizerConfig`: a byte of each moment; those of embeddings are more."""
        return 2.0

    def build(self, trained: Trained) -> Optimizer:
        """The package's."""
        from torch import nn

        optim: Any = import_module("bitsandbytes.optim")
        manager = optim.GlobalOptimManager.get_instance()
        for module in trained.model.modules():
            if isinstance(module, nn.Embedding):
                manager.register_module_override(module, "weight", {"optim_bits": 32})
        return optim.AdamW8bit(trained.groups, betas=trained.betas, eps=trained.epsilon)
