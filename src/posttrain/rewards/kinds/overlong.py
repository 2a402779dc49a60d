"""DAPO's soft punishment of long completions (arXiv:2503.14476, eq. 13)."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from posttrain.errors import RecipeError
from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.base import Count


class OverlongReward(RewardConfig):
    """DAPO's soft punishment of long completions."""

    name: Literal["overlong"] = "overlong"
    max_length: Count | None = None
    """L_max in tokens; rollout.max_tokens if not set."""
    cache: Count | None = None
    """Tokens before max_length in which the punishment grows; a fifth of it if not set, as in DAPO."""

    @model_validator(mode="after")
    def _leaves_room(self) -> OverlongReward:
        if self.max_length is not None and self.cache is not None and self.cache >= self.max_length:
            raise ValueError(f"cache: {self.cache} is not below max_length: {self.max_length}")
        return self

    def build(self, judged: Judged) -> Overlong:
        """Up to the longest answer, where no length is given."""
        longest = self.max_length or judged.max_tokens
        if self.cache is not None and self.cache >= longest:
            raise RecipeError(f"rewards: overlong: cache: {self.cache} is not below rollout.max_tokens: {judged.max_tokens}")
        return Overlong(max_length=longest, cache=self.cache or max(1, longest // 5))


class Overlong:
    """DAPO's soft punishment of long completions (arXiv:2503.14476, eq. 13).

    0  up to L_max - C tokens,   ((L_max - C) - L) / C  from there,   -1  over L_max
    """

    name = "overlong"
    columns = ()

    def __init__(self, *, max_length: int, cache: int) -> None:
        self._max_length, self._cache = max_length, cache

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        free = self._max_length - self._cache
        return [Judgement(max(-1.0, min(0.0, (free - len(tokens)) / self._cache))) for tokens in group.tokens]

    def close(self) -> None:
        """Nothing was started."""
