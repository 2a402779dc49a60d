"""Prefix-RFT (arXiv:2507.01679): one of a question's rollouts continues the head of its demonstration.

    ratio r = pi_theta / pi_old on prefix and continuation alike, mask of PPO with dual clip, N = rows × max_tokens
    A = R - b; of the prefix's tokens only the `keep` share of highest entropy, of the whole collection, have one

The prefix's length is uniform in [low_t, high] of the demonstration, low_t from `low_start` to `low_end` by a cosine over the
run. `baseline` says what b is for the row that continues: the mean of the rows without a prefix (`plain`), of the whole
group (`group`), or as in the authors' code `uncentred`: plain for the prefix, 0 for its continuation. The authors choose
the tokens in each micro-batch, so that the gradient depends on how it is cut; that is not offered.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative, Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class PrefixRFT(Hybrid):
    """Blending SFT and RFT by prefix sampling."""

    divides = False
    beside_rollouts: ClassVar[bool] = True

    name: Literal["prefix_rft"] = "prefix_rft"
    low_start: Share = 0.95
    """The smallest share of a demonstration that is a prefix, when the run begins."""
    low_end: Share = 0.05
    """The same when it ends; by a cosine in between."""
    high: Share = 0.95
    """The largest share."""
    keep: Share = 0.2
    """The share of prefix tokens that are trained on, those of highest entropy; 1: all."""
    baseline: Literal["plain", "group", "uncentred"] = "plain"
    """What is taken from the reward: the mean of the rows without a prefix, of all rows, or as the first, and nothing from
    the row that goes on from a prefix."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    dual_clip: Annotated[float, Field(gt=1)] | None = 3.0
    """A token of negative advantage leaves the loss where its ratio is above this as well."""
    max_tokens: Count
    """The constant length in N. The recipe fills it from `rollout.max_tokens`."""

    @model_validator(mode="after")
    def _low_is_low(self) -> PrefixRFT:
        if max(self.low_start, self.low_end) > self.high:
            raise ValueError(f"high: the prefix's largest share, {self.high}, is below low_start or low_end")
        return self

    def build(self) -> Algorithm:
        """One term over prefixes and rollouts."""
        from posttrain.algorithms.terms import clip_mask, entropy_penalties, kl_terms, needs, policy_term
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, plan, select
        from posttrain.estimator.parts.credit import baseline, prefix, tokens

        per = average.constant(self.max_tokens)
        clip = clip_mask(True, self.clip_low, self.clip_high, self.dual_clip)
        credit = partial(prefix.prefix_credit, baseline=self.baseline)
        chosen = (credit, partial(tokens.most_uncertain, keep=self.keep))
        return Algorithm(
            name=self.name,
            paper="arXiv:2507.01679",
            needs=needs(self, demonstration="prefix", collected_entropy="prefix" if self.keep < 1 else "none"),
            terms=(policy_term(self, per, mask=clip), *kl_terms(self.kl_coef, "k3", per, select.rollouts)),
            penalties=entropy_penalties(self.entropy_coef, select.rollouts),
            credit=partial(baseline.in_turn, steps=chosen) if self.keep < 1 else credit,
            planner=partial(plan.continued, start=self.low_start, end=self.low_end, high=self.high),
        )
