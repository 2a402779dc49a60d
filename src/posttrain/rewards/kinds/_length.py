"""The score of a completion's length in tokens, its end included."""

from __future__ import annotations

from abc import ABC
from typing import Annotated, Literal

from pydantic import Field

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.options import RewardConfig
from posttrain.settings.base import Count

Shape = Literal["quadratic", "polyline"]


def length_score(tokens: int, *, max_length: int, peak: float, shape: Shape) -> float:
    """A reward that rises to 1 at `peak` and falls to -1 at `max_length` (arXiv:2505.19439, eq. 2 to 4).

    With x = L / L_max:

    quadratic    1 - (1 - x/p)²  up to p,   1 - 2 ((x - p)/(1 - p))²  from there
    polyline     x/p             up to p,   1 - 2 (x - p)/(1 - p)     from there
    """
    x = min(tokens / max_length, 1.0)
    if shape == "quadratic":
        return 1 - (1 - x / peak) ** 2 if x <= peak else 1 - 2 * ((x - peak) / (1 - peak)) ** 2
    return x / peak if x <= peak else 1 - 2 * (x - peak) / (1 - peak)


class Length:
    """`length_score` of every completion."""

    name = "length"
    columns = ()

    def __init__(self, *, max_length: int, peak: float = 0.5, shape: Shape = "quadratic") -> None:
        self._max_length, self._peak = max_length, peak
        self._shape: Shape = shape

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [Judgement(self.score(len(tokens))) for tokens in group.tokens]

    def score(self, tokens: int) -> float:
        """Of a completion of that many tokens."""
        return length_score(tokens, max_length=self._max_length, peak=self._peak, shape=self._shape)

    def close(self) -> None:
        """Nothing was started."""


class OfLength(RewardConfig, ABC):
    """Of rewards of a length."""

    max_length: Count | None = None
    """L_max in tokens; rollout.max_tokens if not set."""
    peak: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Where the reward of length is largest, as a share of max_length."""
    shape: Shape = "quadratic"
    """How it rises to the peak and falls from there: in parabolas or in straight lines."""

    def made_length(self, max_tokens: int) -> Length:
        """The score of lengths up to `max_length`, or to that of the longest answer."""
        return Length(max_length=self.max_length or max_tokens, peak=self.peak, shape=self.shape)
