"""What several that learn from a teacher have: the term over sampled tokens, and the penalty over whole distributions."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posttrain.estimator import Mask, Part, Penalty, Select, Term
    from posttrain.estimator.parts.average import Average


def towards_teacher(
    *, kl_max: float, reward_coef: float = 0.0, mask: Mask | None = None, correction: Part | None = None
) -> Term:
    """A_t = log q(y_t) - log pi_old(y_t), within ±kl_max, + reward_coef · the rewards' advantage; N = tokens."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator, metric
    from posttrain.estimator.parts import correction as corrections
    from posttrain.estimator.parts import mask as masks

    estimator = Estimator(
        denominator=denominator.old,
        advantage=partial(advantage.towards_teacher, bound=kl_max, reward_coef=reward_coef),
        mask=mask or masks.keep,
        correction=correction or corrections.none,
    )
    return Term(
        name="policy", estimator=estimator, average=average.token, metrics=(Metric("kl/teacher", metric.kl_to_teacher),)
    )


def divergence(beta: float, *, coef: float = 1.0, per: Average | None = None, select: Select | None = None) -> Penalty:
    """coef · JSD_beta(q || pi), which is KL(q || pi) at 0 and KL(pi || q) at 1; N = tokens, if not said otherwise."""
    from posttrain.estimator import Penalty
    from posttrain.estimator.parts.average import token
    from posttrain.estimator.parts.select import everything

    how: Any = {0.0: {"quantity": "kl"}, 1.0: {"quantity": "reverse_kl"}}.get(beta, {"quantity": "jsd", "beta": beta})
    return Penalty(name="divergence/teacher", coef=coef, average=per or token, select=select or everything, **how)
