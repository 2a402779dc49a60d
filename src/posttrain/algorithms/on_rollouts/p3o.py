"""P3O (arXiv:2605.12380, after arXiv:1905.01756): one number for how much samples of an older policy are trusted.

mask 1, pi_ref = pi_theta (detached), A' = A · min(w, ESS) - (1 - ESS)(1 - 1/w), w = pi/pi_behavior of the token,
A = (R - mean)/(std + e) of the group, N = tokens

ESS = (sum w)² / (n sum w²) over all tokens is the cap of the importance weight, and 1 - ESS the coefficient of
KL(pi || pi_behavior), k3. It is taken once per collection, with one update for each; the code that was read (FeynRL, by
its author) takes it in each micro-batch, so that its gradient depends on the cut. The sampler is older by
`rollout.ahead`, or another by its engine's rounding.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import over_groups
from posttrain.algorithms.options import OnGroups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class P3O(OnGroups):
    """Importance weights and a KL by the effective sample size."""

    corrects = True
    measures_tokens = True
    whole_rows = True

    name: Literal["p3o"] = "p3o"
    updates: Literal[1] = 1

    @model_validator(mode="after")
    def _corrects_by_itself(self) -> P3O:
        if self.correction is not None or self.old == "sampler":
            asked = "correction" if self.correction is not None else "old"
            raise ValueError(f"{asked}: p3o weighs tokens by pi/pi_behavior itself: leave correction and old as they are")
        return self

    def build(self) -> Algorithm:
        """Weights and the KL's pull are made once, with the collection."""
        from posttrain.estimator.parts import average, denominator, mask
        from posttrain.estimator.parts.credit import baseline, sampled

        plain = partial(baseline.group_normalised, eps=self.std_eps)
        return over_groups(
            self,
            paper="arXiv:2605.12380",
            ratio=denominator.current,
            mask=mask.keep,
            credit=partial(sampled.by_effective_size, credit=plain),
            per=average.token,
            old_logp=True,
        )
