"""Muon (Jordan et al. 2024), torch's: the momentum of a matrix, made orthogonal by Newton-Schulz iterations.

M <- momentum · M + (1 - momentum) · G,   W <- W - lr · s · orthogonal(M),   s by default of arXiv:2502.16982
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from posttrain.settings.base import Count
from posttrain.train.optimizers._optimizer import OptimizerConfig, Trained

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


class Muon(OptimizerConfig):
    """Matrices of the trunk by orthogonal changes; embeddings, head, norms and biases by AdamW."""

    whole_matrices: ClassVar[bool] = True
    reads_betas: ClassVar[bool] = True
    name: Literal["muon"] = "muon"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Of the gradients of the matrices."""
    nesterov: bool = True
    """The gradient counts once more, after the momentum."""
    iterations: Count = 5
    """Of Newton-Schulz."""
    scale: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """Of a change: 0.2 sqrt(max(rows, columns)), which is about as large as AdamW's, so that its learning rate holds; or
    sqrt(max(1, rows / columns))."""

    def build(self, trained: Trained) -> Optimizer:
        """Both, as one."""
        from torch import optim

        from posttrain.train.optimizers._chained import Chained

        apart = _at_the_ends(trained.model)
        matrices, others = _split(trained.groups, lambda p: p.ndim == 2 and id(p) not in apart)
        if not matrices:
            raise ValueError("muon: nothing that is trained is a matrix between embeddings and head: take adamw")
        options: dict[str, Any] = {"momentum": self.momentum, "nesterov": self.nesterov, "ns_steps": self.iterations}
        chained: list[Optimizer] = [optim.Muon(matrices, adjust_lr_fn=self.scale, **options)]
        if others:
            chained.append(optim.AdamW(others, betas=trained.betas, eps=trained.epsilon, fused=True))
        return Chained(chained)


def _at_the_ends(model: Any) -> set[int]:
    """The parameters of embeddings and head, an adapter's for them among them."""
    ends: list[nn.Module | None] = [model.get_input_embeddings(), model.get_output_embeddings()]
    return {id(parameter) for end in ends if end is not None for parameter in end.parameters()}


def _split(
    groups: list[dict[str, Any]], belongs: Callable[[Tensor], bool]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Each group in two, without the empty ones."""
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for group in groups:
        for side, wanted in zip(found, (True, False), strict=True):
            if kept := [parameter for parameter in group["params"] if belongs(parameter) == wanted]:
                side.append({**group, "params": kept})
    return found
