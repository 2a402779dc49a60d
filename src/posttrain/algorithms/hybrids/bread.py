"""BREAD, branched rollouts from expert anchors (arXiv:2506.17211): GRPO that is helped where it fails, as little as works.

    rollouts:  mask of PPO, pi_ref = pi_old,  A = (R - mean)/(std + e) of the group,  N = rows, s = 1/|y|

A question of which no rollout is right is asked again from heads of its demonstration, and the group that goes on from the
shortest head with a right rollout takes the place of the one that failed. A question that is solved without help, and one
that no head helps, keep their rollouts. The head carries no loss: over the rows that share it, advantages of a group add up
to nothing.

The abstract was read, and no code: what a group is made of, that the head carries no loss, and how it is searched for are
ours. Heads are of 1/8 to 7/8 of the demonstration's tokens, found by bisection: up to three more rounds of n rollouts for
each such question. The group that was sampled from the head that is chosen is trained on, and none is sampled once more.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class BREAD(Hybrid):
    """Branched rollouts from expert anchors."""

    reads_verdict = True
    beside_rollouts: ClassVar[bool] = True

    name: Literal["bread"] = "bread"
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""

    def build(self) -> Algorithm:
        """GRPO's term, over groups some of which go on from a demonstration."""
        from posttrain.algorithms.terms import (
            clip_mask,
            entropy_penalties,
            group_credit,
            kl_terms,
            needs,
            policy_term,
        )
        from posttrain.estimator import Algorithm
        from posttrain.estimator.parts import average, select
        from posttrain.estimator.parts.credit import baseline, prefix

        credit, per = group_credit(True, self.std_eps), average.sequence_mean
        return Algorithm(
            name=self.name,
            paper="arXiv:2506.17211",
            needs=needs(self, demonstration="prefix", branches=True),
            terms=(
                policy_term(self, per, mask=clip_mask(True, self.clip_low, self.clip_high)),
                *kl_terms(self.kl_coef, "k3", per, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef, select.rollouts),
            credit=partial(baseline.in_turn, steps=(prefix.without_loss, credit)),
        )
