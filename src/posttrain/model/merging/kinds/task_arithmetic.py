"""θ_base + Σ λ_i (θ_i - θ_base): task vectors are added (Editing Models with Task Arithmetic, arXiv:2212.04089).

With an instruct model and one of further pre-training as models, and weights of 1, it carries an instruct vector over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.model.merging.kinds._merge import Formula, Vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same


class TaskArithmetic(Vectors):
    """Task vectors, added to the base."""

    least: ClassVar[int] = 1

    method: Literal["task_arithmetic"] = "task_arithmetic"

    def build(self) -> Formula:
        """A vector of weight 0 is not read into it."""
        from peft.utils.merge_utils import task_arithmetic

        from posttrain.model.merging.tensors import weights_of

        counted = [number for number, weight in enumerate(self.scales) if weight]
        weights = weights_of([self.scales[i] for i in counted])

        def added(same: Same) -> Iterator[Tensor]:
            for base, vectors in same.vectors():
                yield base + task_arithmetic([vectors[i] for i in counted], weights) if counted else base

        return added
