"""What losses of single completions share: the loss is a function of a completion, its label (1 or -1) and its anchor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm
    from posttrain.estimator.needs import RunningMean
    from posttrain.estimator.parts.preference import Loss


def labels(name: str, paper: str, loss: Loss, *, anchor: Literal["none", "mismatched"] | RunningMean) -> Algorithm:
    """The algorithm that descends `loss`, N = rows; watched by its value, and by the share of rows that moved as labelled."""
    from functools import partial

    from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
    from posttrain.estimator.parts import average, denominator, preference
    from posttrain.estimator.parts.credit import weight

    watched = (
        Metric(f"objective/{name}", partial(preference.row_objective, loss=loss)),
        Metric("preference/accuracy", preference.label_accuracy),
        *((Metric("preference/anchor", preference.anchor),) if anchor != "none" else ()),
    )
    term = Term(
        name=name,
        estimator=Estimator(denominator=denominator.current, advantage=partial(preference.row_pull, loss=loss)),
        average=average.sequence_sum,
        metrics=watched,
    )
    needs = Needs(scope="sequence", demonstration="row", weight="label", ref_logp=True, anchor=anchor)
    return Algorithm(name=name, paper=paper, needs=needs, terms=(term,), credit=weight.as_given)
