"""What losses of pairs share: the loss is a function of the chosen and the rejected completions, and A is its slope.

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm, Term
    from posttrain.estimator.parts.average import Average
    from posttrain.estimator.parts.preference import Loss


def pairs(
    name: str, paper: str, loss: Loss, *beside: Term, reference: bool = True, unit: int = 2, collision: bool = False
) -> Algorithm:
    """The algorithm that descends `loss`, N = pairs, and the terms `beside` it; watched by its value, accuracies and the
    margin. Without a reference there is no margin against one, and the policy's own preference is the accuracy. A unit has a
    pair, and what else the terms beside read.
    """
    from functools import partial

    from posttrain.estimator import Algorithm, Estimator, Metric, Needs, Term
    from posttrain.estimator.parts import average, denominator, metric, preference, select

    against = (
        Metric("preference/accuracy", metric.preference_accuracy),
        Metric("preference/raw_accuracy", metric.raw_accuracy),
        Metric("preference/margin", metric.preference_margin),
    )
    watched = (
        Metric(f"objective/{name}", partial(preference.objective, loss=loss)),
        *(against if reference else (Metric("preference/accuracy", metric.raw_accuracy),)),
        Metric("logp/chosen", metric.chosen_logp),
    )
    term = Term(
        name=name,
        estimator=Estimator(denominator=denominator.current, advantage=partial(preference.pull, loss=loss)),
        average=average.units(unit),
        select=select.everything if unit == 2 else select.first_two,
        metrics=watched,
    )
    needs = Needs(scope="sequence", preference=True, unit=unit, ref_logp=reference, collision=collision)
    return Algorithm(name=name, paper=paper, needs=needs, terms=(term, *beside))


def chosen_sft(coef: float, per: Average | None = None) -> tuple[Term, ...]:
    """coef · the negative log-likelihood of what is chosen; a mean over its tokens, if no other is given."""
    from posttrain.algorithms.terms import sft_term
    from posttrain.estimator.parts import average, select

    return (sft_term(coef, per or average.token, select=select.chosen),) if coef else ()
