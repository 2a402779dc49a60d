"""AdamW (arXiv:1711.05101), torch's, in one kernel for all of a step: what is taken where no optimizer is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch.optim import Optimizer


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay; its betas are training.adam_beta1 and adam_beta2."""

    reads_betas: ClassVar[bool] = True
    name: Literal["adamw"] = "adamw"

    def build(self, trained: Trained) -> Optimizer:
        """torch's, fused."""
        from torch import optim

        return optim.AdamW(trained.groups, betas=trained.betas, eps=trained.epsilon, fused=True)
