"""Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177), on data that do not change.

mask 1, pi_ref = pi_theta (detached), A = min(exp((R - V) / beta), cap), N = tokens        L = - sum_t A log p_t / N

V is what an answer to the prompt is worth: the column value, or the mean reward of the rows with the same prompt; or the
column advantage is R - V itself. A whole answer is one action. The paper fits V by a network and collects anew; its
weights are capped at 20 and its code standardises advantages (both recalled), which here beta does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class AWR(OnDemonstrations):
    """Advantage-weighted regression."""

    name: Literal["awr"] = "awr"
    beta: Positive = 1.0
    """An advantage of this much more weighs e times as much."""
    cap: Positive = 20.0
    """The largest weight."""

    def build(self) -> Algorithm:
        """SFT's row with exponential weights of advantages."""
        from posttrain.algorithms.on_demonstrations._exponential import exponential

        return exponential(self.name, "arXiv:1910.00177", "advantage", beta=self.beta, cap=self.cap)
