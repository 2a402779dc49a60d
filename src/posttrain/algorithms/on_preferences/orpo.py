"""Odds ratio preference optimization (Hong et al. 2024, arXiv:2403.07691, eq. 4 to 7): without a reference.

x = mean_t logp of a completion, log odds = x - log(1 - exp x)
L = the negative log-likelihood of the chosen completions - lambda · mean over pairs of log sigmoid(log odds_w - log odds_l)
    mask 1, pi_ref = pi_theta (detached), A = 1, N = chosen tokens; and
    A = ±lambda sigmoid(-(log odds_w - log odds_l)) / (1 - exp x) / |y|, N = pairs
    As in TRL 1.16's code, whose likelihood covers the prompt as well: ours the completion only. The odds of a certain
    completion are infinite: x is at most -1e-6, beyond which the odds are flat, ours.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnPreferences
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from torch import Tensor

    from posttrain.estimator import Algorithm
    from posttrain.estimator.parts.preference import Completions


class ORPO(OnPreferences):
    """SFT on what is chosen, and the odds of it against what is rejected; no start model is held."""

    name: Literal["orpo"] = "orpo"
    odds_coef: NonNegative = 0.1
    """lambda: weight of the odds; 0 is SFT on what is chosen."""

    def build(self) -> Algorithm:
        """The likelihood, and the logistic loss of the log odds ratio."""
        from torch.nn.functional import logsigmoid

        from posttrain.algorithms.on_preferences._pairs import chosen_sft, pairs

        def log_odds(completions: Completions) -> Tensor:
            mean = completions.mean.clamp(max=-1e-6)
            return mean - (-mean.expm1()).log()

        def odds_ratio(chosen: Completions, rejected: Completions, *, odds_coef: float) -> Tensor:
            return -odds_coef * logsigmoid(log_odds(chosen) - log_odds(rejected))

        loss = partial(odds_ratio, odds_coef=self.odds_coef)
        return pairs(self.name, "arXiv:2403.07691", loss, *chosen_sft(1.0), reference=False)
