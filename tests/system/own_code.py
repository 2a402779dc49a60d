"""What somebody else's file or package holds: a loss, a reward class, a schedule, a transform and an environment."""

from __future__ import annotations

from typing import Any

from posttrain import Group, Judgement
from posttrain.environments.base import Start, Step, Turn
from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term, View
from posttrain.estimator.parts import advantage, average, denominator, metric
from posttrain.estimator.parts.credit import baseline


def undecided(power: float = 1.0) -> Algorithm:
    """SFT in which a token counts most where the model is undecided."""

    def indecision(view: View) -> Any:
        return (1 - view.logp.exp()) ** power

    estimator = Estimator(denominator=denominator.unit, advantage=indecision)
    term = Term(name="undecided", estimator=estimator, average=average.token, metrics=(Metric("nll", metric.nll),))
    return Algorithm(name="undecided", paper="a test", needs=Needs(scope="token", demonstration="row"), terms=(term,))


def plain(rollouts: int, updates: int) -> Algorithm:
    """Policy gradient with the group's mean as baseline."""
    estimator = Estimator(denominator=denominator.old, advantage=advantage.given)
    return Algorithm(
        name="plain",
        paper="a test",
        needs=Needs(scope="token", rollouts=rollouts, updates=updates, old_logp=updates > 1),
        terms=(Term(name="policy", estimator=estimator, average=average.sequence_mean),),
        credit=baseline.group_mean,
    )


class Even:
    """1 for an answer of an even number of tokens, and a bonus."""

    columns = ("answer",)

    def __init__(self, bonus: float = 0.0) -> None:
        self.bonus = bonus

    def judge(self, group: Group) -> list[Judgement]:
        return [Judgement(float(len(ids) % 2 == 0) + self.bonus, right=len(ids) % 2 == 0) for ids in group.tokens]


def steps_down(step: int, steps: int, warmup: int, low: float = 0.5) -> float:
    """1 in the first half, `low` in the second."""
    return 1.0 if 2 * step < steps else low


def shifted(columns: dict[str, Any], rng: Any, by: str = "1+") -> dict[str, Any]:
    """A longer question of the same form."""
    return {**columns, "prompt": by + columns["prompt"]}


class Countdown:
    """Asks for the next lower number, so often."""

    def __init__(self, times: int = 3) -> None:
        self.left = times

    def reset(self, columns: dict[str, Any], seed: int) -> Start:
        return Start([{"role": "user", "content": f"{seed % 10}="}])

    def step(self, turn: Turn) -> Step:
        self.left -= 1
        right = turn.text.startswith(str(self.left))
        return Step([{"role": "user", "content": f"{self.left}="}], float(right), not self.left, {"correct": right})

    def close(self) -> None:
        pass
