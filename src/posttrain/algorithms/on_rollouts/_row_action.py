"""What REINFORCE, RLOO and ReMax share: a row is one action.

Its log-probs are summed, not averaged (s = 1, N = rows). kl_coef takes the k1 estimate of KL(pi || start) out of the
reward, as RLOO's paper does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from posttrain.algorithms.options import OnRollouts
    from posttrain.estimator import Algorithm, Batch, Mask, Part
    from posttrain.estimator.parts.average import Average


def row_action(
    config: OnRollouts,
    paper: str,
    *,
    credit: Callable[[Batch], Batch],
    ratio: Part,
    mask: Mask,
    per: Average | None = None,
    scope: Literal["token", "sequence"] | None = None,
) -> Algorithm:
    """The algorithm with this credit; with several updates its ratio is of the whole row."""
    from posttrain.algorithms.terms import entropy_penalties, less_kl, needs, policy_term
    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts import average

    return Algorithm(
        name=config.name,
        paper=paper,
        needs=needs(config, scope=scope or ("sequence" if config.updates > 1 else "token"), kl_in_reward=True),
        terms=(policy_term(config, per or average.sequence_sum, mask=mask, denominator=ratio),),
        penalties=entropy_penalties(config.entropy_coef),
        credit=less_kl(config.kl_coef, credit),
    )
