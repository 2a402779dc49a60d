"""Dynamic fine-tuning, and the same anchored to the start model.

    DFT (Wu et al. 2025, arXiv:2508.05629, eq. 9): mask 1, pi_ref = 1, A = 1, N = tokens
        L = - sum_t sg(p_t) log p_t / N
    ASFT (arXiv:2509.23753): the same, and  + kl_coef · sum_t KL(pi_start(·|s_t) || pi_theta(·|s_t)) / N
        forward KL over the whole vocabulary, not weighted by p_t, at every supervised token.

The official code of both takes the mean of micro-batch means (and DFT's, a sum of them); here, as in the papers, one N.
The gradient is that of the mean of 1 - p, logged as `objective/dft`; the printed loss, -sg(p) log p, is no objective: it is
small where p is near 0 as well as where it is near 1. From a random start DFT settles on the most frequent tokens and the NLL
rises without end; it is made for models that already give the right token a fair probability. Watch `nll`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.settings.base import Config, NonNegative

if TYPE_CHECKING:
    from posttrain.estimator.algorithm import Algorithm, Term


class DFT(Config):
    """Dynamic fine-tuning: SFT weighted by the token's own probability."""

    name: Literal["dft"] = "dft"


class ASFT(Config):
    """Anchored SFT: DFT with a full-vocabulary KL to the frozen start model."""

    name: Literal["asft"] = "asft"
    kl_coef: NonNegative = 0.05
    """0.05 in the paper; the official code's default is 0.1, and its notes prefer 0.03 in bfloat16."""


def build_dft(config: DFT) -> Algorithm:
    """SFT's row with denominator 1."""
    from posttrain.estimator.algorithm import Algorithm
    from posttrain.estimator.needs import Needs

    return Algorithm(
        name=config.name,
        paper="arXiv:2508.05629",
        needs=Needs(scope="token", demonstration="row"),
        terms=(_term(),),
    )


def build_asft(config: ASFT) -> Algorithm:
    """DFT's row and a penalty beside it; `kl_coef=0` is DFT."""
    from posttrain.estimator.algorithm import Algorithm, Penalty
    from posttrain.estimator.needs import Needs

    return Algorithm(
        name=config.name,
        paper="arXiv:2509.23753",
        needs=Needs(scope="token", demonstration="row", full_kl=True),
        terms=(_term(),),
        penalties=(Penalty(name="kl/start", quantity="kl", coef=config.kl_coef),),
    )


def _term() -> Term:
    from posttrain.estimator.algorithm import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, average, denominator
    from posttrain.estimator.parts import metric as objective

    return Term(
        name="dft",
        estimator=Estimator(denominator=denominator.unit, advantage=advantage.one),
        average=average.token,
        metrics=(Metric("objective/dft", objective.missed_probability), Metric("nll", objective.nll)),
    )
