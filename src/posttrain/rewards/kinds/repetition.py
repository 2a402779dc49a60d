"""How much of a completion repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.options import Judged, RewardConfig
from posttrain.settings.base import Count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def repeated(tokens: Sequence[int] | NDArray[np.int32], n: int) -> float:
    """The share of a sequence's n-grams that occurred before in it; 0 where it is shorter than n."""
    import numpy as np

    places = len(tokens) - n + 1
    if places < 1:
        return 0.0
    ids, many = np.asarray(tokens, np.int64), len(tokens)
    last = np.empty(int(ids.max()) + 1, np.int64)
    last[ids] = np.arange(many)
    token = last[ids]  # where it stands last: equal for equal ones alone, and below `many`
    gram, grams = token[:places], many
    for further in range(1, n):
        if grams * many > np.iinfo(np.int64).max:
            distinct, gram = np.unique(gram, return_inverse=True)
            grams = len(distinct)
        gram, grams = gram * many + token[further : further + places], grams * many
    in_order = np.sort(gram)
    return 1 - (1 + int(np.count_nonzero(in_order[1:] != in_order[:-1]))) / places


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
