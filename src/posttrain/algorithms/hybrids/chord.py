"""CHORD (arXiv:2508.11408): (1 - mu) · GRPO on rollouts + mu · SFT on demonstrations of a data set of their own.

    rollouts:        mask of PPO, pi_ref = pi_old,  A = (R - mean)/(std + e),  N = tokens, times 1 - mu
    demonstrations:  pi_ref = 1,  A = 1 - p: weight p (1 - p) (phi), or pi_ref = pi_theta, A = 1;  N = tokens, times mu

mu rises to mu_peak over the share `mu_warmup` of the run, falls by a cosine to mu_valley over `mu_decay`, and stays.
CHORD-phi, the default, is mu = 0.1 with phi; CHORD-mu is mu_peak 0.9, mu_valley 0.05, phi off, where paper and code give
different lengths of the decay (30 and 200 steps).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.options import Hybrid
from posttrain.settings.base import Count, NonNegative, Share

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class CHORD(Hybrid):
    """Controllable harmonization of on- and off-policy learning."""

    takes_demonstrations = True
    name: Literal["chord"] = "chord"
    mu_peak: Share = 0.1
    """The largest weight of the demonstrations' term; the rollouts' has what is left of 1."""
    mu_valley: Share = 0.1
    """Its weight in the end."""
    mu_warmup: Share = 0.0
    """The share of the run in which the weight rises from 0 to mu_peak."""
    mu_decay: Share = 1.0
    """The share of the run, after that, in which it falls to mu_valley."""
    phi: bool = True
    """Weigh the demonstrations' tokens by p (1 - p)."""
    demonstrations: Count = 64
    """Rows of data.demonstrations in each optimizer step."""
    clip_low: NonNegative = 0.2
    """A token of negative advantage leaves the loss where its ratio is below 1 - this."""
    clip_high: NonNegative = 0.2
    """A token of positive advantage leaves the loss where its ratio is above 1 + this."""

    @model_validator(mode="after")
    def _fits_in_the_run(self) -> CHORD:
        if self.mu_warmup + self.mu_decay > 1:
            raise ValueError("mu_decay: mu_warmup and mu_decay are shares of the run, and more than all of it together")
        return self

    def build(self) -> Algorithm:
        """Two terms over disjoint rows, whose coefficients add up to 1."""
        from posttrain.algorithms.terms import (
            clip_mask,
            entropy_penalties,
            group_credit,
            kl_terms,
            needs,
            policy_term,
            sft_term,
        )
        from posttrain.estimator import Algorithm, Estimator
        from posttrain.estimator.parts import advantage, average, coefficient, denominator, select
        from posttrain.estimator.parts.credit import baseline

        shape = {"peak": self.mu_peak, "valley": self.mu_valley, "warmup": self.mu_warmup, "decay": self.mu_decay}
        mu = partial(coefficient.warmup_cosine, **shape)
        undecided = Estimator(denominator=denominator.unit, advantage=advantage.indecision)
        clip, rest = clip_mask(True, self.clip_low, self.clip_high), partial(coefficient.rest, of=mu)
        return Algorithm(
            name=self.name,
            paper="arXiv:2508.11408",
            needs=needs(self, demonstration="separate", demonstrations=self.demonstrations),
            terms=(
                policy_term(self, average.token, mask=clip, select=select.rollouts, coef=rest),
                sft_term(mu, average.token, undecided if self.phi else None),
                *kl_terms(self.kl_coef, "k3", average.token, select.rollouts),
            ),
            penalties=entropy_penalties(self.entropy_coef),
            credit=partial(baseline.of_rollouts, credit=group_credit(True, self.std_eps)),
        )
