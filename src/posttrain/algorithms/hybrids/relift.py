"""ReLIFT (arXiv:2506.07527): RL, and from time to time SFT on the questions that RL could not solve.

    rollouts:        mask of PPO, pi_ref = pi_old,    A = R - mean,  N = tokens
    demonstrations:  mask 1,      pi_ref = pi_theta,  A = 1,         N = tokens, times sft_coef

A question of which no rollout is right puts its demonstration into a buffer. When the buffer holds `buffer_size`, one update
on that many follows the updates on the collection that has filled it; at most one for each collection, and what is left
waits on. One that is due when training.max_steps are done is not made. The rollouts of such a question stay among the
others, where equal rewards give them no advantage.

The loop, the order, and the losses were read in the authors' code, whose script has the clip 0.2 and 0.28, advantages
without std, and a buffer of 64; 128 is recalled from the paper. There the newest stand in front, so that a question that was
not reached waits behind all that come later: `order: oldest` is ours. So is `sft_step: same`, without a step of its own; with
a buffer of one and one unsolved question it is HPT with gate 0, but that HPT leaves the failed rollouts out of N. The code
has a second AdamW for the SFT updates; here they share the moments and the learning rate of the others.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ReLIFT(Hybrid):
    """Reinforcement learning interleaved with fine-tuning on the hardest questions."""

    reads_verdict = True
    beside_rollouts: ClassVar[bool] = True

    name: Literal["relift"] = "relift"
    buffer_size: Count = 128
    """Demonstrations of an SFT update, which waits until there are as many."""
    order: Literal["newest", "oldest"] = "newest"
    """Which of those that wait are trained on first."""
    sft_step: Literal["own", "same"] = "own"
    """The SFT update is an optimizer step of its own, which counts as one of training.max_steps; or part of the last one on
    the rollouts that have filled the buffer."""
    sft_coef: NonNegative = 1.0
    """Weight of the SFT loss."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.28
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""
    std: bool = False
    """Divide advantages by the standard deviation of the group's rewards, as GRPO does."""

    @property
    def adds_steps(self) -> bool:
        """See `AlgorithmConfig`."""
        return self.sft_step == "own"

    def build(self) -> Algorithm:
        """Two terms over disjoint rows; which demonstrations are there is the collector's to say."""
        from posttrain.algorithms.terms import (
            clip_mask,
            entropy_penalties,
            group_credit,
            kl_terms,
            needs,
            policy_term,
            sft_term,
        )
        from posttrain.estimator import Algorithm
        from posttrain.estimator.needs import Buffer
        from posttrain.estimator.parts import average, select
        from posttrain.estimator.parts.credit import baseline

        buffer = Buffer(self.buffer_size, self.order, self.sft_step)
        clip = clip_mask(True, self.clip_low, self.clip_high)
        return Algorithm(
            name=self.name,
            paper="arXiv:2506.07527",
            needs=dataclasses.replace(needs(self, demonstration="row"), memory=buffer),
            terms=(
                policy_term(self, average.token, mask=clip, select=select.rollouts),
                sft_term(self.sft_coef, average.token),
                *kl_terms(self.kl_coef, "k3", average.token, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef, select.rollouts),
            credit=partial(baseline.of_rollouts, credit=group_credit(self.std, self.std_eps)),
        )
