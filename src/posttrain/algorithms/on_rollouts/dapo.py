"""DAPO (arXiv:2503.14476): decoupled clip and dynamic sampling.

    mask of PPO with 0.2 / 0.28, pi_ref = pi_old, A = (R - mean)/(std + e) of the group, N = tokens

Groups of equal rewards leave the loss and N (dynamic sampling); the overlong penalty is a reward, not part of the loss.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from posttrain.algorithms.on_rollouts._groups import Clipped, over_groups
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from posttrain.estimator import Algorithm


class DAPO(Clipped):
    """Decoupled clip and dynamic sampling."""

    name: Literal["dapo"] = "dapo"
    clip_high: NonNegative = 0.28
    dynamic_sampling: bool = True
    """Groups whose rewards are all alike are replaced by other questions, in up to rollout.resamples rounds."""

    @model_validator(mode="after")
    def _groups_can_be_equal(self) -> DAPO:
        if self.dynamic_sampling and self.kl_in == "reward" and self.kl_coef:
            raise ValueError("dynamic_sampling: with kl_in: reward no group has equal rewards")
        return self

    @property
    def replaces_groups(self) -> bool:
        """See `AlgorithmConfig`."""
        return self.dynamic_sampling

    def build(self) -> Algorithm:
        """The table's row `dapo`."""
        from posttrain.estimator.parts import average, denominator
        from posttrain.estimator.parts.credit import baseline

        filtered = baseline.varying_groups_normalised if self.dynamic_sampling else baseline.group_normalised
        return over_groups(
            self,
            paper="arXiv:2503.14476",
            ratio=denominator.old,
            mask=self.clip(),
            credit=partial(filtered, eps=self.std_eps),
            per=average.token,
            metrics=self.native(),
            resample=self.replaces_groups,
        )
