"""REC (arXiv:2509.24203): REINFORCE with the group's mean, held near the policy that sampled by leaving tokens out.

mask by r = pi/pi_old of the token; pi_ref = pi_theta (detached), or pi_old with `importance`; A = R - mean of the group,
N = tokens

    one_side  not r > 1 + high where A > 0, nor r < 1 - low where A < 0: PPO's
    two_side  1 - low <= r <= 1 + high
    ring      two_side, and again r <= 1 - far_low where A >= 0, r >= 1 + far_high where A <= 0: tokens that are far off on
              the side that A leads back from

With updates: 1 and old: trainer r is 1: no mask takes a token out, importance changes nothing, and this is REINFORCE with the
group's mean. Regions act on several updates, on older samples, and on old: sampler where engine and trainer differ.

The paper's point is that the clip does the work: without an importance weight, the default here, little is lost. Its other
regularisers are `dro` with std: false (OPMD there) and `asymre`. Masks and constants were read in Trinity-RFT's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import Clip, over_groups
from posttrain.algorithms.options import OnGroups
from posttrain.settings.base import Positive, Share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from posttrain.estimator import Algorithm


class REC(Clip, OnGroups):
    """REINFORCE whose clip needs no ratio."""

    divides = False

    name: Literal["rec"] = "rec"
    region: Literal["one_side", "two_side", "ring"] = "one_side"
    """Which tokens stay in the loss."""
    importance: bool = False
    """Tokens are weighed by pi/pi_old."""
    far_low: Share = 0.6
    """With ring: a token of positive advantage is back in the loss where its ratio is at most 1 - this."""
    far_high: Positive = 2.0
    """With ring: a token of negative advantage is back in the loss where its ratio is at least 1 + this."""

    def unread(self) -> Mapping[str, str]:
        """See `AlgorithmConfig`."""
        far = {} if self.region == "ring" else dict.fromkeys(("far_low", "far_high"), "region: ring")
        return {**super().unread(), **far}

    @model_validator(mode="after")
    def _ring_is_around(self) -> REC:
        if self.region == "ring" and (self.far_low < self.clip_low or self.far_high < self.clip_high):
            raise ValueError("far_low, far_high: the ring lies outside the region: no less than clip_low and clip_high")
        return self

    def build(self) -> Algorithm:
        """The plain policy gradient where the mask lets it."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline

        near = {"low": self.clip_low, "high": self.clip_high}
        region = {
            "one_side": partial(mask.ppo_clip, **near),
            "two_side": partial(mask.two_sided, **near),
            "ring": partial(mask.ring, **near, far_low=self.far_low, far_high=self.far_high),
        }[self.region]
        return over_groups(
            self,
            paper="arXiv:2509.24203",
            ratio=denominator.old if self.importance else denominator.current,
            mask=partial(mask.by_old, mask=region),
            credit=baseline.group_mean,
            per=average.token,
        )
