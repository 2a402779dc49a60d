"""(1 - α) θ_base + α θ: a model on the line to the one that it was trained from (WiSE-FT, arXiv:2109.01903)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.model.merging.kinds._merge import Formula, OverBase
from posttrain.settings.base import Share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same


class WiseFT(OverBase):
    """The line from a base to what was trained from it; the command takes several α, and writes the curve."""

    least: ClassVar[int] = 1
    most: ClassVar[int | None] = 1

    method: Literal["wise_ft"] = "wise_ft"
    alpha: Share = 0.5
    """α: 0 is the base, 1 the model that was trained from it."""

    def build(self) -> Formula:
        """Its ends are the models, bit by bit."""
        alpha = self.alpha

        def on_the_line(same: Same) -> Iterator[Tensor]:
            for base, trained in same.blocks():
                yield {0.0: base, 1.0: trained}.get(alpha, (1 - alpha) * base + alpha * trained)

        return on_the_line
