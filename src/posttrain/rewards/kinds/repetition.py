"""How much of a completion repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.base import Count


def repeated(tokens: Sequence[int], n: int) -> float:
    """The share of a sequence's n-grams that occurred before in it; 0 where it is shorter than n."""
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


class RepetitionReward(RewardConfig):
    """Minus the share of repeated n-grams of tokens."""

    name: Literal["repetition"] = "repetition"
    n: Count = 4
    """Tokens of an n-gram."""

    def build(self, judged: Judged) -> Repetition:
        """Nothing is started."""
        return Repetition(n=self.n)


class Repetition:
    """Minus the share of repeated n-grams of tokens, from 0 to -1 (the penalty of arXiv:2502.03373, linear, over tokens)."""

    name = "repetition"
    columns = ()

    def __init__(self, *, n: int = 4) -> None:
        self._n = n

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [Judgement(-repeated(tokens, self._n)) for tokens in group.tokens]

    def close(self) -> None:
        """Nothing was started."""
