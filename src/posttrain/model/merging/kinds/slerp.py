"""Spherical interpolation (Shoemake 1985, SIGGRAPH): each tensor on the arc between those of two models.

θ = sin((1 - t) ω) / sin ω · θ_0 + sin(t ω) / sin ω · θ_1, with ω the angle between both tensors as vectors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.model.merging.kinds._merge import Formula, MergeConfig
from posttrain.settings.base import Share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from posttrain.model.merging.tensors import Same

SMALLEST = 1e-4
"""Of sin ω: of vectors that are nearly one direction, or opposite, the arc is no better known than the line."""


class Slerp(MergeConfig):
    """The arc between two models."""

    least: ClassVar[int] = 2
    most: ClassVar[int | None] = 2

    method: Literal["slerp"] = "slerp"
    t: Share = 0.5
    """Where on the arc: 0 is the first model, 1 the second."""

    def build(self) -> Formula:
        """Its ends are the models, bit by bit."""

        def on_the_arc(same: Same) -> Iterator[Tensor]:
            first, second = self._shares(same)
            for one, other in same.blocks():
                yield one if second == 0 else other if first == 0 else first * one + second * other

        return on_the_arc

    def _shares(self, same: Same) -> tuple[float, float]:
        straight = 1 - self.t, self.t
        if self.t in (0, 1):
            return straight
        dot = squares = others = 0.0
        for one, other in same.blocks():
            dot, squares, others = dot + float(one @ other), squares + float(one @ one), others + float(other @ other)
        norms = math.sqrt(squares * others)
        angle = math.acos(max(-1.0, min(1.0, dot / norms))) if norms > 0 else 0.0
        if math.sin(angle) < SMALLEST:
            return straight
        return math.sin((1 - self.t) * angle) / math.sin(angle), math.sin(self.t * angle) / math.sin(angle)
