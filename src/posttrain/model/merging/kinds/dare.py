"""DARE (arXiv:2311.03099): entries of a task vector are dropped by chance and the others divided by the share that is
kept, so that its mean stays; then they are added, or merged as TIES does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from posttrain.model.merging.kinds._merge import Density, Formula, Vectors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same


class Dare(Vectors):
    """Task vectors with entries dropped at random."""

    least: ClassVar[int] = 1

    method: Literal["dare"] = "dare"
    density: Density = 0.5
    """The share of entries that is kept: 1 - p of the paper, whose drop rate is p."""
    agree: bool = False
    """Whether those that agree in sign are averaged, as TIES does; they are added if not."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of what is dropped."""

    def build(self) -> Formula:
        """peft's, with a seed for each block of a tensor."""
        from peft.utils import merge_utils

        from posttrain.model.merging.tensors import weights_of

        weights = weights_of(self.scales)

        def thinned(same: Same) -> Iterator[Tensor]:
            import torch

            for number, (base, vectors) in enumerate(same.vectors()):
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(same.seed(self.seed, number) % 2**63)
                    if self.density < 1:
                        vectors = [merge_utils.random_pruning(one, self.density, rescale=True) for one in vectors]
                if self.agree:
                    kept = torch.stack(vectors)
                    signs = merge_utils.calculate_majority_sign_mask(kept)
                    yield base + merge_utils.disjoint_merge(kept * weights[:, None], signs)
                else:
                    yield base + merge_utils.task_arithmetic(vectors, weights)

        return thinned
