"""Direct preference optimization and IPO: pairs of a chosen and a rejected completion, against a frozen reference.

m = sum_t(logp - ref) of the chosen completion - the same of the rejected one
DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7)    L = - mean over pairs of log sigmoid(beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-beta m), N = pairs
    label smoothing e (Mitchell 2023): A = ±beta [(1 - e) sigmoid(-beta m) - e sigmoid(beta m)]
IPO (Azar et al. 2023, arXiv:2310.12036, eq. 17)       L = mean over pairs of (m - 1/(2 beta))²
    A = ∓2 (m - 1/(2 beta)), N = pairs; `average: token` takes means over tokens in m, as TRL does
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.settings.base import Config, Positive

if TYPE_CHECKING:
    from posttrain.estimator.algorithm import Algorithm, Metric, Part


class DPO(Config):
    """Direct preference optimization."""

    name: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class IPO(Config):
    """Identity preference optimization."""

    name: Literal["ipo"] = "ipo"
    beta: Positive = 0.1
    """tau in the paper."""
    average: Literal["sum", "token"] = "sum"


def build_dpo(config: DPO) -> Algorithm:
    """The logistic loss of the margin."""
    from posttrain.estimator.algorithm import Metric
    from posttrain.estimator.parts import advantage
    from posttrain.estimator.parts import metric as objective

    options = {"beta": config.beta, "label_smoothing": config.label_smoothing}
    native = Metric("objective/dpo", partial(objective.logistic_preference_loss, **options))
    return _preference(config.name, "arXiv:2305.18290", partial(advantage.logistic_preference, **options), native)


def build_ipo(config: IPO) -> Algorithm:
    """The squared loss of the margin."""
    from posttrain.estimator.algorithm import Metric
    from posttrain.estimator.parts import advantage
    from posttrain.estimator.parts import metric as objective

    per_token = config.average == "token"
    native = Metric("objective/ipo", partial(objective.squared_preference_loss, beta=config.beta, per_token=per_token))
    pull = partial(advantage.squared_preference, beta=config.beta, per_token=per_token)
    return _preference(config.name, "arXiv:2310.12036", pull, native)


def _preference(name: str, paper: str, pull: Part, native: Metric) -> Algorithm:
    from posttrain.estimator.algorithm import Algorithm, Estimator, Metric, Term
    from posttrain.estimator.needs import Needs
    from posttrain.estimator.parts import average, denominator
    from posttrain.estimator.parts import metric as objective

    watched = (
        native,
        Metric("preference/accuracy", objective.preference_accuracy),
        Metric("preference/raw_accuracy", objective.raw_accuracy),
        Metric("preference/margin", objective.preference_margin),
        Metric("logp/chosen", objective.chosen_logp),
    )
    return Algorithm(
        name=name,
        paper=paper,
        needs=Needs(scope="sequence", preference=True, ref_logp=True),
        terms=(
            Term(
                name=name,
                estimator=Estimator(denominator=denominator.current, advantage=pull),
                average=average.pair,
                metrics=watched,
            ),
        ),
    )
