"""Supervised fine-tuning: maximum likelihood of demonstrations.

mask 1, pi_ref = pi_theta (detached), A = 1, N = tokens        L = - sum_t log p_t / N
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.settings.base import Config

if TYPE_CHECKING:
    from posttrain.estimator.algorithm import Algorithm


class SFT(Config):
    """Supervised fine-tuning."""

    name: Literal["sft"] = "sft"


def build(config: SFT) -> Algorithm:
    """The row in which nothing weighs."""
    from posttrain.estimator.algorithm import Algorithm, Estimator, Metric, Term
    from posttrain.estimator.needs import Needs
    from posttrain.estimator.parts import advantage, average, denominator
    from posttrain.estimator.parts import metric as objective

    return Algorithm(
        name=config.name,
        paper="arXiv:2203.02155",
        needs=Needs(scope="token", demonstration="row"),
        terms=(
            Term(
                name="sft",
                estimator=Estimator(denominator=denominator.current, advantage=advantage.one),
                average=average.token,
                metrics=(Metric("nll", objective.nll),),
            ),
        ),
    )
