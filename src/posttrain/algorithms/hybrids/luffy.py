"""LUFFY (arXiv:2504.14945): the demonstration is a member of its group, and its likelihood is shaped.

    ratio  pi_theta / pi_old on rollouts,  gamma p / (p + gamma)² on the demonstration, the gradient of p / (p + gamma)
    A = R - mean over rollouts and demonstration, mask 1, N = rows × max_tokens, one term over both

The paper's group has 7 rollouts and one demonstration. Its last recipe has neither clip nor std, as the defaults here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.options import GroupSize, Hybrid
from posttrain.settings.base import Count, NonNegative, Positive

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class LUFFY(Hybrid):
    """Learning to reason under off-policy guidance."""

    beside_rollouts: ClassVar[bool] = True

    name: Literal["luffy"] = "luffy"
    rollouts: GroupSize = 7
    """Sampled for each question; with the demonstration the group has one more."""
    gamma: Positive = 0.1
    """Of policy shaping: a demonstrated token's gradient is that of p / (p + gamma), p its probability."""
    clip: bool = False
    """PPO's clip on the rollouts."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    std: bool = False
    """Divide advantages by the standard deviation of the group's rewards, as GRPO does."""
    max_tokens: Count
    """The constant length in N. The recipe fills it from `rollout.max_tokens`."""

    def build(self) -> Algorithm:
        """One term, whose denominator is chosen by origin."""
        from posttrain.algorithms.terms import clip_mask, entropy_penalties, group_credit, kl_terms, needs, policy_term
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, denominator, mask, select

        per = average.constant(self.max_tokens)
        clip = clip_mask(self.clip, self.clip_low, self.clip_high)
        kept = partial(mask.on_rollouts, mask=clip) if self.clip else clip
        shaped = partial(denominator.shaped, gamma=self.gamma)
        ratio = partial(denominator.by_origin, rollout=denominator.old, demonstration=shaped)
        return Algorithm(
            name=self.name,
            paper="arXiv:2504.14945",
            needs=needs(self, demonstration="row"),
            terms=(
                policy_term(self, per, mask=kept, denominator=ratio),
                *kl_terms(self.kl_coef, "k3", per, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=group_credit(self.std, self.std_eps),
        )
