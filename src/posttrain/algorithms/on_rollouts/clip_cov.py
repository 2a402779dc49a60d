"""Clip-Cov (arXiv:2505.22617): a few of the tokens that drive the entropy down are not learnt from.

mask of PPO, pi_ref = pi_old, A = (R - mean)/(std + e) of the group, 0 on a random `share` of tokens whose covariance
(A - mean A)(log pi_old - mean log pi_old) lies in (low, high), N = all tokens

Covariances are taken once per collection, of the policy that collected; the authors take the current policy's in each
micro-batch, so that their gradient depends on its cut, and leave out tokens that PPO has clipped already. Random means: by
a hash of what was sampled. Read in verl's code.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class ClipCov(Clipped):
    """Some tokens of high covariance are not learnt from."""

    measures_tokens = True

    name: Literal["clip_cov"] = "clip_cov"
    share: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """Of all tokens, how many are left out; at least one."""
    low: float = 1.0
    """Covariances above this are high."""
    high: float = 5.0
    """Those above this are left alone."""

    @model_validator(mode="after")
    def _low_is_low(self) -> ClipCov:
        if self.low >= self.high:
            raise ValueError(f"low: no covariance lies above {self.low} and below high: {self.high}")
        return self

    def build(self) -> Algorithm:
        """The table's row `grpo`, averaged over tokens, with this credit."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline, tokens

        plain = partial(baseline.group_normalised, eps=self.std_eps)
        left_out = partial(tokens.without_covariant, share=self.share, low=self.low, high=self.high)
        return over_groups(
            self,
            paper="arXiv:2505.22617",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(baseline.in_turn, steps=(plain, left_out)),
            per=average.token,
            metrics=self.native(),
            old_logp=True,
        )
