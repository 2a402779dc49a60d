"""Length-desensitised DPO (Liu et al. 2024, arXiv:2409.06411).

m = sum_t w_t (logp - ref) of the chosen completion - the same of the rejected one,
w_t = 1 up to the length of the shorter of the two, alpha after it
L = - mean over pairs of log sigmoid(beta m)
    mask 1, pi_ref = pi_theta (detached), A = ±w_t beta sigmoid(-beta m), N = pairs
    As in TRL 1.16's code, `ld_alpha`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class LDDPO(OnPreferences):
    """DPO in which the tokens that only the longer completion has count less."""

    name: Literal["ld_dpo"] = "ld_dpo"
    beta: Positive = 0.1
    """How strongly the policy is held to the start model."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Weight of the tokens beyond the shorter completion's length; 1 is DPO."""

    def build(self) -> Algorithm:
        """The logistic loss of the weighted margin."""
        from torch import minimum, where
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import pairs
        from posttrain.estimator import row_sum

        def desensitised(chosen: Completions, rejected: Completions, *, beta: float, alpha: float) -> Tensor:
            shared = minimum(chosen.length, rejected.length)
            won, lost = (
                row_sum(each.view, where(each.view.select.cumsum(-1) > shared, alpha * each.gains, each.gains))
                for each in (chosen, rejected)
            )
            return -logsigmoid(beta * (won - lost))

        return pairs(self.name, "arXiv:2409.06411", partial(desensitised, beta=self.beta, alpha=self.alpha))
