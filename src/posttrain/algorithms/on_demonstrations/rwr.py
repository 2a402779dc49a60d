"""Reward-weighted regression (Peters and Schaal 2007; for language models in Korbak et al. 2023, arXiv:2302.08582).

mask 1, pi_ref = pi_theta (detached), A = min(exp(R / beta), cap), N = tokens        L = - sum_t A log p_t / N

R is the column reward of a demonstration. The cap of 1000 is that of the latter's code, as its notes have it; beta is
recalled of no paper: it is in the unit of the rewards, and a large one is SFT. What is good for one prompt and usual for
another weighs the same; `awr` takes the prompt's own mean from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class RWR(OnDemonstrations):
    """Reward-weighted regression."""

    name: Literal["rwr"] = "rwr"
    beta: Positive = 1.0
    """A reward of this much more weighs e times as much."""
    cap: Positive = 1000.0
    """The largest weight."""

    def build(self) -> Algorithm:
        """SFT's row with exponential weights of rewards."""
        from posttrain.algorithms.on_demonstrations._exponential import exponential

        return exponential(self.name, "Peters and Schaal 2007", "reward", beta=self.beta, cap=self.cap)
