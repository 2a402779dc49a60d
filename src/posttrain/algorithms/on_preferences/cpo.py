"""Contrastive preference optimization (Xu et al. 2024, arXiv:2401.08417): without a reference.

s = sum_t logp of a completion
L = - mean over pairs of log sigmoid(beta (s_w - s_l)) + alpha · the negative log-likelihood of the chosen completions
    mask 1, pi_ref = pi_theta (detached), A = ±beta sigmoid(-beta (s_w - s_l)), N = pairs; and A = 1, N = chosen tokens
    As in TRL 1.16's code, whose likelihood covers the prompt as well: ours the completion only.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import NonNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class CPO(OnPreferences):
    """DPO without a start model, held by the likelihood of what is chosen."""

    name: Literal["cpo"] = "cpo"
    beta: Positive = 0.1
    """Scale of the log-probs."""
    sft_coef: NonNegative = 1.0
    """alpha: weight of the likelihood of what is chosen."""

    def build(self) -> Algorithm:
        """The logistic loss of the policy's own margin, and the likelihood."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import chosen_sft, pairs

        def contrastive(chosen: Completions, rejected: Completions, *, beta: float) -> Tensor:
            return -logsigmoid(beta * (chosen.logp - rejected.logp))

        loss = partial(contrastive, beta=self.beta)
        return pairs(self.name, "arXiv:2401.08417", loss, *chosen_sft(self.sft_coef), reference=False)
