"""Gradient ascent on what is to be forgotten (Jang et al. 2022, arXiv:2210.01504).

mask 1, pi_ref = pi_theta (detached), A = -1, N = tokens        L = sum_t log p_t / N

SFT's gradient with the sign turned. It has no floor: the text falls apart long after the rows are forgotten, so end it by
training.stop_when, at an NLL of these rows, or a number of steps; the authors forget a few rows at a time. On one text that
nobody wants forgotten, for 15 steps at most, it is GAP (arXiv:2306.07052), which is said to help models generalise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from posttrain.algorithms.options import OnDemonstrations

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class Ascent(OnDemonstrations):
    """Gradient ascent on demonstrations, to forget them."""

    name: Literal["ascent"] = "ascent"

    def build(self) -> Algorithm:
        """SFT's row with advantage -1."""
        from posttrain.algorithms.on_demonstrations._forget import ascent_term
        from posttrain.estimator import Algorithm, Needs

        return Algorithm(
            name=self.name,
            paper="arXiv:2210.01504",
            needs=Needs(scope="token", demonstration="row", unwanted=True),
            terms=(ascent_term(self.name),),
        )
