"""Ends a run whose rewards fail too often: what is left would be another task than the one that was asked for."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence

from posttrain.errors import RewardError
from posttrain.rewards.base import Weighted
from posttrain.rewards.rewarded import Rewarded

WINDOW = 1024  # of the latest rows, at least, or those of the latest collection
SURE = 0.001  # a run ends when so many failures would be seen less often at the rate that is allowed; asked of every group


class ErrorRate:
    """Counts failures of each reward over the latest rows.

    Args:
        rewards: with the rate of failures that each is allowed.
    """

    def __init__(self, rewards: Sequence[Weighted]) -> None:
        self._rewards = rewards
        self._seen: dict[str, deque[Counter[str | None]]] = {entry.reward.name: deque() for entry in rewards}

    def state(self) -> dict[str, list[list[tuple[str | None, int]]]]:
        """The latest rows: of each reward, for each of its collections, how often which fault was seen."""
        return {name: [list(counter.items()) for counter in seen] for name, seen in self._seen.items()}

    def restore(self, state: Mapping[str, Sequence[Sequence[tuple[str | None, int]]]]) -> None:
        """Goes on from what `state` gave."""
        self._seen = {name: deque(Counter(dict(pairs)) for pairs in seen) for name, seen in state.items()}

    def add(self, rewarded: Rewarded) -> None:
        """The rows of one collection.

        Raises:
            RewardError: a reward fails more often than it may: a binomial test, so that few rows prove little.
        """
        for entry in self._rewards:
            seen = self._seen[entry.reward.name]
            seen.append(Counter(rewarded.faults[entry.reward.name]))
            while len(seen) > 1 and sum(counter.total() for counter in list(seen)[1:]) >= WINDOW:
                seen.popleft()
            counted = sum(seen, Counter[str | None]())
            rows, faults = counted.total(), {fault: n for fault, n in counted.most_common() if fault is not None}
            failed = sum(faults.values())
            if failed and _as_many_by_chance(failed, rows, entry.max_error_rate) < SURE:
                shown = "; ".join(f"{n} × {fault}" for fault, n in list(faults.items())[:3])
                raise RewardError(
                    f"The reward {entry.reward.name} failed on {failed} of the last {rows} completions, over max_error_rate "
                    f"{entry.max_error_rate:g}: {shown}. Mend it, or raise its max_error_rate. The same command resumes "
                    "from the last checkpoint, if there is one."
                )


def _as_many_by_chance(failed: int, rows: int, rate: float) -> float:
    """How probable so many failures or more are at a rate."""
    from scipy import stats

    return float(stats.binomtest(failed, rows, rate, alternative="greater").pvalue)
