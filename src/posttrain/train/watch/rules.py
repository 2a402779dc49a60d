"""What a run is watched for: rules over its metrics, each small and named. `docs/reliability.md` has them as a table.

A rule is shown every optimizer step in order, as metrics.jsonl has it, and gives its sentence when its time has come. What it
remembers follows from those lines alone, so that a run which goes on is watched as one that was never broken off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from posttrain.train.watch.trends import EntropyCollapse, GapGrows, LossSpike

Metrics = Mapping[str, float]

IN_A_ROW = 5  # collections, or steps, before a lasting state is told; a run of fewer is told at its end
CUT_OFF = 0.95  # share of answers
COMPARED = ("reward/spread", "rollout/equal_groups", "rollout/identical_groups")
"""Metrics that are a sign of nothing where rewards are not compared."""
UNGRADED = 0.5  # share of answers
NOBODY_TAUGHT = "no answer has another right one of its question beside it that could be shown to its teacher"
KL = 1.0  # nats a token, policy to reference


class Rule(Protocol):
    """Looks at each step, once."""

    name: str

    def look(self, step: int, metrics: Metrics, *, last: bool) -> str | None:
        """The sentence that is to be told now, or None.

        Args:
            step: optimizer steps done.
            metrics: of the step; those of a collection stand on the first of its steps.
            last: no step comes after it.
        """
        ...


@dataclass
class Lasting:
    """Something that holds in several collections (or steps) in a row; or in all of a run that has fewer.

    name: of the rule.
    holds: whether it does; None where the step says nothing of it.
    says: the steps in words ("of steps 1 to 5"), and the metrics of the last one that it held in, as a sentence.
    times: so many in a row.
    """

    name: str
    holds: Callable[[Metrics], bool | None]
    says: Callable[[str, Metrics], str]
    times: int = IN_A_ROW
    first: int | None = None
    count: int = 0
    always: bool = True
    latest: Metrics = field(default_factory=dict[str, float])

    def look(self, step: int, metrics: Metrics, *, last: bool) -> str | None:
        """See `Rule`."""
        held = self.holds(metrics)
        if held:
            self.first, self.count, self.latest = self.first or step, self.count + 1, dict(metrics)
        elif held is not None:
            self.first, self.count, self.always = None, 0, False
        if self.count and ((self.count == self.times and held) or (last and self.always and self.count < self.times)):
            return self.says(f"of step {step}" if self.first == step else f"of steps {self.first} to {step}", self.latest)
        return None


def _of_rollouts(metrics: Metrics) -> bool:
    return "rollout/length" in metrics


def _rewards_equal(metrics: Metrics) -> bool | None:
    return metrics["reward/spread"] == 0 if "reward/spread" in metrics else None


def _no_signal(metrics: Metrics) -> bool | None:
    """But for rewards that are all equal, which are told as such."""
    if "train/skipped_rows" not in metrics:
        return None
    return metrics["train/skipped_rows"] == 1 and not _rewards_equal(metrics)


def _why_no_signal(metrics: Metrics) -> str:
    if metrics.get("rollout/ungraded") == 1:
        return "no answer has a grade"
    if metrics.get("rollout/taught") == 0:
        return f"{NOBODY_TAUGHT}, which is all that is learnt from"
    if metrics.get("rollout/equal_groups") == 1:
        return "rewards are equal within each group, so that all advantages are 0"
    return "rows are masked, or their advantages are 0"


def _cut_off(metrics: Metrics) -> bool | None:
    """An answer of one token has no end to miss."""
    return metrics["rollout/cut_off"] >= CUT_OFF and metrics["rollout/length/max"] > 1 if _of_rollouts(metrics) else None


def _at_least(name: str, bound: float) -> Callable[[Metrics], bool | None]:
    return lambda metrics: metrics[name] >= bound if name in metrics else None


def _unfilled(metrics: Metrics) -> bool | None:
    if "rollout/unfilled_groups" not in metrics:
        return None
    return metrics["rollout/unfilled_groups"] > 0 and not _rewards_equal(metrics)


def _nobody_taught(metrics: Metrics) -> bool | None:
    """But for steps without any signal, which are told as such."""
    if "rollout/taught" not in metrics:
        return None
    return metrics["rollout/taught"] == 0 and metrics.get("train/skipped_rows") != 1


def _no_gradient(metrics: Metrics) -> bool | None:
    """But for steps that are told as such, and those whose rewards give none."""
    if "grad_norm" not in metrics or metrics.get("train/left_out") or metrics.get("train/skipped_rows") == 1:
        return None
    if metrics.get("rollout/equal_groups") == 1:
        return None
    return metrics["grad_norm"] == 0


def _no_rate(metrics: Metrics) -> bool | None:
    return metrics["learning_rate"] == 0 if "learning_rate" in metrics else None


def all_rules() -> list[Rule]:
    """Every rule, fresh."""
    return [
        Lasting(
            "rewards-never-vary",
            _rewards_equal,
            lambda steps, metrics: (
                f"Rewards never vary: every answer {steps} has {metrics['reward/mean']:.4g}, so that nothing is learnt from "
                "them. Look at completions/: the task may be too hard or done, or the rewards do not read what the model "
                "writes."
            ),
        ),
        Lasting(
            "no-signal",
            _no_signal,
            lambda steps, metrics: (
                f"No row {steps} carries a gradient, so that nothing is learnt: {_why_no_signal(metrics)}. Look at "
                "completions/ and left_out.jsonl."
            ),
        ),
        Lasting(
            "all-cut-off",
            _cut_off,
            lambda steps, metrics: (
                f"{metrics['rollout/cut_off']:.0%} of the answers {steps} were cut off, at "
                f"{metrics['rollout/length/max']:.0f} tokens. Raise rollout.max_tokens; or the model writes no end token "
                "that is known, and rollout.stop ends its answers."
            ),
        ),
        Lasting(
            "answers-equal",
            _at_least("rollout/identical_groups", 1.0),
            lambda steps, _: (
                f"All answers to a question are the same, for every question {steps}: there is nothing to compare. A higher "
                "rollout.temperature or top_p varies them."
            ),
        ),
        Lasting(
            "ungraded",
            _at_least("rollout/ungraded", UNGRADED),
            lambda steps, metrics: (
                f"{metrics['rollout/ungraded']:.0%} of the answers {steps} have no grade and are not learnt from: a reward "
                "fails on them, or has nothing to say. completions/ has the reasons."
            ),
        ),
        Lasting(
            "reward-fails",
            lambda metrics: metrics["rollout/failed_grades"] > 0 if "rollout/failed_grades" in metrics else None,
            lambda steps, metrics: (
                f"A reward failed on {metrics['rollout/failed_grades']:.1%} of the answers {steps}: they are masked, never "
                "scored 0. completions/ has the reasons; above max_error_rate the run ends."
            ),
            times=1,
        ),
        Lasting(
            "groups-never-fill",
            _unfilled,
            lambda steps, metrics: (
                f"{metrics['rollout/unfilled_groups']:.0%} of the groups {steps} have no signal after all rounds of "
                "replacing them (rollout.resamples): the task is too hard or too easy for this model."
            ),
        ),
        Lasting(
            "nobody-taught",
            _nobody_taught,
            lambda steps, _: (
                f"Nothing {steps} is learnt from the teacher: {NOBODY_TAUGHT}. The task may be too hard, or right answers "
                "are all in the same words, or too long for it (rollout/correct, completions/)."
            ),
        ),
        Lasting(
            "no-gradient",
            _no_gradient,
            lambda steps, _: (
                f"The gradient {steps} is 0, though rows carry a signal: no parameter that is trained is reached."
            ),
        ),
        Lasting(
            "no-rate",
            _no_rate,
            lambda steps, _: f"The learning rate {steps} is 0: nothing is trained.",
        ),
        Lasting(
            "step-left-out",
            lambda metrics: metrics["train/left_out"] > 0 if "train/left_out" in metrics else None,
            lambda steps, _: (
                f"No update was made {steps}, for something in it is not finite: nonfinite/ has its rows. Three in a row end "
                "the run."
            ),
            times=1,
        ),
        Lasting(
            "kl-grows",
            _at_least("kl/reference", KL),
            lambda steps, metrics: (
                f"The policy {steps} is {metrics['kl/reference']:.3g} nats a token away from the reference: it has left "
                "what it was. A lower learning_rate or a higher kl_coef holds it."
            ),
        ),
        LossSpike(),
        GapGrows(),
        EntropyCollapse(),
    ]
