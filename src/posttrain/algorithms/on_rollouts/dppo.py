"""Divergence PPO (arXiv:2602.04879): a trust region of probabilities, not of their ratio.

mask |p - p_old| at most 0.15 on the side of A (tv), or KL(p_old || p) at most 0.05 of the token against all others (kl);
ratio min(r, 20) as a weight, A = (R - mean)/(std + e) of the group, N = tokens

A rare token may grow many times before its probability has moved, and a likely one is stopped early. With `old: sampler`
the region is around whoever sampled, as the authors advise. Mask and cap were read in verl's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class DPPO(OnGroups):
    """Divergence PPO."""

    name: Literal["dppo"] = "dppo"
    divergence: Literal["tv", "kl"] = "tv"
    """How far a token's probability has moved: by total variation, or by KL."""
    limit: Positive | None = None
    """A token leaves the loss where it has moved by more than this in the direction of its advantage; 0.15 for tv, 0.05 for
    kl where it is not set."""
    ratio_cap: Annotated[float, Field(gt=1)] = 20.0
    """The largest ratio that a token is weighted by."""

    def build(self) -> Algorithm:
        """CISPO's weight with a mask of its own."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        region, usual = {"tv": (mask.total_variation, 0.15), "kl": (mask.binary_kl, 0.05)}[self.divergence]
        return over_groups(
            self,
            paper="arXiv:2602.04879",
            ratio=partial(denominator.old_capped, high=self.ratio_cap - 1),
            mask=partial(region, limit=usual if self.limit is None else self.limit),
            credit=partial(baseline.group_normalised, eps=self.std_eps),
            per=average.token,
        )
