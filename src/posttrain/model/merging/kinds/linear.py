"""Σ w_i θ_i: the average of models (Model soups, arXiv:2203.05482), uniform if no weights are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.model.merging.kinds._merge import Formula, Weighted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same

NEAR = 1e-6


class Linear(Weighted):
    """The weighted average of models."""

    method: Literal["linear"] = "linear"

    @model_validator(mode="after")
    def _is_an_average(self) -> Linear:
        if self.weights is not None and abs(sum(self.weights) - 1) > NEAR:
            raise ValueError(
                f"weights: they add up to {sum(self.weights):g}, and those of an average to 1; task_arithmetic adds what "
                "models have learnt to a base"
            )
        return self

    def build(self) -> Formula:
        """A model of weight 0 is not read into it, so that [1, 0] is the first, bit by bit."""
        from peft.utils.merge_utils import task_arithmetic

        from posttrain.model.merging.tensors import weights_of

        weights = self.weights if self.weights is not None else [1 / len(self.models)] * len(self.models)
        counted = [number for number, weight in enumerate(weights) if weight]

        def average(same: Same) -> Iterator[Tensor]:
            for block in same.blocks():
                yield task_arithmetic([block[i] for i in counted], weights_of([weights[i] for i in counted]))

        return average
