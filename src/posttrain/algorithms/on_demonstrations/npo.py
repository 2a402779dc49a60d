"""Negative preference optimization (Zhang et al. 2024, arXiv:2404.05868): the rejected half of DPO, to forget answers.

m = sum_t (logp - start) of an answer        L = - mean over answers of (2/beta) log sigmoid(-beta m)
    mask 1, pi_ref = pi_theta (detached), A = -2 sigmoid(beta m), N = rows, s = 1

Bounded where `ascent` is not: an answer that is far below the start's likelihood is left alone. As beta falls to 0 it is
ascent with N = rows. beta 0.1 is the paper's (recalled).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class NPO(OnDemonstrations):
    """Negative preference optimization, to forget answers."""

    name: Literal["npo"] = "npo"
    beta: Positive = 0.1
    """How soon an answer that has become less likely than at the start is left alone."""

    def build(self) -> Algorithm:
        """One term, whose advantage is negative."""
        from posttrain.algorithms.on_demonstrations._forget import npo_term
        from posttrain.estimator import Algorithm, Needs

        return Algorithm(
            name=self.name,
            paper="arXiv:2404.05868",
            needs=Needs(scope="sequence", demonstration="row", unwanted=True, ref_logp=True),
            terms=(npo_term(self.name, self.beta),),
        )
