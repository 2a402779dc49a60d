"""Before anything is timed: contenders must compute the same. What does not is written as such, and gets no timing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from results import Result
from timing import Contender, Outcome

STEP, STEP_BF16 = 1e-4, 2e-2
"""Of a step: relative difference of the loss, and of the norm of the gradients. In bfloat16 a log-prob has two digits."""
SMALL_LOSS = 0.1
"""A loss smaller than this, as GRPO's, which is around 0, is compared relative to it."""
PARAMETERS = 1e-2
"""Of a training: |ours - theirs| by |theirs - start|, 2-norms over all parameters. AdamW divides by the gradient's own size,
so a parameter whose gradient is all rounding moves as far as any."""


def of_steps(case: str, shape: dict[str, Any], contenders: Mapping[str, Contender]) -> dict[str, Result]:
    """A row for each contender, held to the first; one that is not honest (a floor) is held to nothing."""
    tolerance = STEP_BF16 if shape.get("dtype") == "bfloat16" else STEP
    rows: dict[str, Result] = {}
    first: Outcome | None = None
    for name, contender in contenders.items():
        outcome = contender.outcome()
        contender.clear()
        if not contender.honest:
            rows[name] = Result(case, name, shape, kernels=outcome.operations)
            continue
        first = first or outcome
        difference = outcome_difference(outcome, first)
        rows[name] = Result(
            case,
            name,
            shape,
            loss=outcome.loss,
            gradient_norm=outcome.gradient_norm,
            kernels=outcome.operations,
            agrees=difference <= tolerance,
            difference=difference,
            tolerance=tolerance,
            compared="loss or gradient norm",
        )
    return rows


def outcome_difference(one: Outcome, other: Outcome) -> float:
    """The larger relative difference of loss and gradient norm; NaN counts as infinite."""
    losses = abs(one.loss - other.loss) / max(abs(other.loss), SMALL_LOSS)
    norms = abs(one.gradient_norm - other.gradient_norm) / max(other.gradient_norm, 1e-12)
    return max(losses, norms) if losses == losses and norms == norms else float("inf")


def of_parameters(case: str, shape: dict[str, Any], runs: Mapping[str, Any]) -> dict[str, Result]:
    """Rows of trainings that are done, which must have moved all parameters alike."""
    first = next(iter(runs.values())).moved
    rows: dict[str, Result] = {}
    for name, run in runs.items():
        difference = float((run.moved - first).norm() / first.norm())
        agrees = difference <= PARAMETERS and float(first.norm()) > 0
        compared = {"difference": difference, "tolerance": PARAMETERS, "compared": "how far parameters moved"}
        rows[name] = Result(case, name, shape, agrees=agrees, **compared)
    return rows


def of_work(case: str, shape: dict[str, Any], runs: Mapping[str, Any]) -> dict[str, Result]:
    """Rows of trainings on their own samples, which must have made as many updates of as many answers and tokens."""
    first = next(iter(runs.values())).work
    rows: dict[str, Result] = {}
    for name, run in runs.items():
        difference = max(abs(a - b) / max(b, 1) for a, b in zip(run.work, first, strict=True))
        agrees = difference == 0 and float(run.moved.norm()) > 0
        compared = {"difference": difference, "tolerance": 0.0, "compared": "updates, answers or tokens"}
        rows[name] = Result(case, name, shape, agrees=agrees, **compared)
    return rows
