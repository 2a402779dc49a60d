"""Triple preference optimization (Saeidi et al. 2024, arXiv:2405.16681): a pair, and a third completion to imitate.

s = sum_t logp of a completion, n = |y|
L = - mean over triples of log sigmoid(beta (s_w - s_l)) + alpha · the negative log-likelihood of the third completions
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-beta (s_w - s_l)), N = triples; and A = 1, N = their tokens
    The paper's TPO-L has beta (s_w / n_w - s_l / n_l) - gamma in place of beta (s_w - s_l).
    As in TRL 1.16's code, whose defaults are alpha = 1, beta = 0.01. With the chosen completion as the third it is CPO.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.options import AlgorithmConfig
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class TPO(AlgorithmConfig):
    """A pair without a start model, held by the likelihood of a third completion, which the data have beside it."""

    trains_on = "preferences"

    name: Literal["tpo"] = "tpo"
    beta: Positive = 0.01
    """Scale of the log-probs."""
    average: Literal["sum", "token"] = "sum"
    """Log-probs of a completion are added up, or are means over its tokens (TPO-L)."""
    gamma: NonNegative = 0.0
    """The margin that means should have."""
    sft_coef: Positive = 1.0
    """alpha: weight of the likelihood of the third completion."""

    @model_validator(mode="after")
    def _has_a_margin_of_means(self) -> TPO:
        if self.gamma and self.average == "sum":
            raise ValueError("gamma: a margin of means: set average: token")
        return self

    def build(self) -> Algorithm:
        """The logistic loss of the policy's own margin, and the likelihood."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs
        from posttrain.algorithms.terms import sft_term
        from posttrain.estimator.parts import average, select

        def contrastive(
            chosen: Completions, rejected: Completions, _: Completions, *, beta: float, gamma: float, means: bool
        ) -> Tensor:
            margin = chosen.mean - rejected.mean if means else chosen.logp - rejected.logp
            return -logsigmoid(beta * margin - gamma)

        loss = partial(contrastive, beta=self.beta, gamma=self.gamma, means=self.average == "token")
        imitated = sft_term(self.sft_coef, average.token, select=select.third)
        return pairs(self.name, "arXiv:2405.16681", loss, imitated, reference=False, unit=3)
