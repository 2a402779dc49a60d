"""What an environment paid, as a reward among the others. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.environments.base import FAILED
from posttrain.environments.options import EnvironmentConfig
from posttrain.rewards.base import Group, Judgement, Weighted


class EnvironmentReward:
    """A `Reward`: the sum of what the turns of each episode were paid, and the verdict and the answer that the info of its
    last turn has. An episode that failed has none, and counts as a fault.
    """

    name = "environment"
    columns: tuple[str, ...] = ()

    def judge(self, group: Group) -> Sequence[Judgement]:
        """See `Reward`."""
        return [_judged(one) for one in group.episodes]

    def close(self) -> None:
        """See `Reward`."""


def paid_by(config: EnvironmentConfig, *, judged: bool) -> Weighted:
    """What an environment pays, among the rewards of a run; it says which episodes are right where nobody else has `judged`
    that.
    """
    return Weighted(
        EnvironmentReward(), config.weight, verdict=config.says_right and not judged, max_error_rate=config.max_error_rate
    )


def _judged(episode: Mapping[str, Any]) -> Judgement:
    if episode["end"] in FAILED:
        return Judgement.failed(f"{episode['end']}: {episode['fault']}")
    last = episode["turns"][-1]["info"] if episode["turns"] else {}
    paid = sum(turn["reward"] or 0.0 for turn in episode["turns"])
    correct, answer = last.get("correct"), last.get("answer")
    return Judgement(paid, None if correct is None else bool(correct), None if answer is None else str(answer))
