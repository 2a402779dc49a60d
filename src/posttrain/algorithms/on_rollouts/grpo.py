"""GRPO and its special cases: clipped policy gradients with a baseline from the question's own group.

    ratio r_t = pi_theta / pi_old, advantage A of the group, mask of PPO; they differ in these places only:

    | name    | ratio                | clip            | advantage             | average           | paper      |
    | grpo    | token                | 0.2 / 0.2       | (R - mean)/(std + e)  | sequence mean     | 2402.03300 |
    | dr_grpo | token                | 0.2 / 0.2       | R - mean              | rows × max_tokens | 2503.20783 |
    | dapo    | token                | 0.2 / 0.28      | as grpo               | token             | 2503.14476 |
    | gspo    | row, geometric mean  | 3e-4 / 4e-4     | as grpo               | sequence mean     | 2507.18071 |
    | cispo   | min(r, 1 + high)     | none, a weight  | as grpo               | token             | 2506.13585 |

The clip acts only with several updates a collection. kl_coef · KL(pi || start) in the loss is the k3 estimate of GRPO's
eq. 4, or k2; with `kl_in: reward`, k1 is taken out of the reward instead. DAPO takes groups of equal rewards out of the loss
and of N (dynamic sampling); its overlong penalty is a reward, not part of the loss.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from posttrain.algorithms.options import GroupConfig
from posttrain.settings.base import NonNegative

if TYPE_CHECKING:
    from collections.abc import Callable

    from posttrain.estimator.algorithm import Algorithm, Mask, Metric, Part
    from posttrain.estimator.batch import Batch
    from posttrain.estimator.parts.average import Average


class _Clipped(GroupConfig):
    clip_low: NonNegative = 0.2
    clip_high: NonNegative = 0.2


class GRPO(_Clipped):
    """Group relative policy optimization."""

    name: Literal["grpo"] = "grpo"
    kl_coef: NonNegative = 0.04
    dual_clip: Annotated[float, Field(gt=1)] | None = None


class DrGRPO(_Clipped):
    """GRPO done right: no division by std or length."""

    name: Literal["dr_grpo"] = "dr_grpo"
    max_tokens: Annotated[int, Field(ge=1)]
    """The constant length in N. The recipe fills it from `rollout.max_tokens`."""


class DAPO(_Clipped):
    """Decoupled clip and dynamic sampling."""

    name: Literal["dapo"] = "dapo"
    clip_high: NonNegative = 0.28
    dynamic_sampling: bool = True

    @model_validator(mode="after")
    def _groups_can_be_equal(self) -> DAPO:
        if self.dynamic_sampling and self.kl_in == "reward" and self.kl_coef:
            raise ValueError("dynamic_sampling: with kl_in: reward no group has equal rewards")
        return self


class GSPO(_Clipped):
    """Group sequence policy optimization."""

    name: Literal["gspo"] = "gspo"
    clip_low: NonNegative = 3e-4
    clip_high: NonNegative = 4e-4


class CISPO(GroupConfig):
    """Clipped importance weights instead of dropped tokens."""

    name: Literal["cispo"] = "cispo"
    clip_high: NonNegative = 4.0
    """The weight is min(r, 1 + clip_high); the paper tunes it and prints no value. TRL's epsilon_high is 1 + this."""


def build_grpo(config: GRPO) -> Algorithm:
    """The table's row `grpo`."""
    from posttrain.estimator.parts import average, denominator
    from posttrain.estimator.parts.credit import baseline

    return _group(
        config,
        paper="arXiv:2402.03300",
        ratio=denominator.old,
        mask=_clip(config, config.dual_clip),
        credit=partial(baseline.group_normalised, eps=config.std_eps),
        per=average.sequence_mean,
        metrics=_native(config, config.dual_clip),
    )


def build_dr_grpo(config: DrGRPO) -> Algorithm:
    """The table's row `dr_grpo`."""
    from posttrain.estimator.parts import average, denominator
    from posttrain.estimator.parts.credit import baseline

    return _group(
        config,
        paper="arXiv:2503.20783",
        ratio=denominator.old,
        mask=_clip(config),
        credit=baseline.group_mean,
        per=average.constant(config.max_tokens),
        metrics=_native(config),
    )


def build_dapo(config: DAPO) -> Algorithm:
    """The table's row `dapo`."""
    from posttrain.estimator.parts import average, denominator
    from posttrain.estimator.parts.credit import baseline

    filtered = baseline.varying_groups_normalised if config.dynamic_sampling else baseline.group_normalised
    return _group(
        config,
        paper="arXiv:2503.14476",
        ratio=denominator.old,
        mask=_clip(config),
        credit=partial(filtered, eps=config.std_eps),
        per=average.token,
        metrics=_native(config),
        resample=config.dynamic_sampling,
    )


def build_gspo(config: GSPO) -> Algorithm:
    """The table's row `gspo`."""
    from posttrain.estimator.parts import average, denominator
    from posttrain.estimator.parts.credit import baseline

    return _group(
        config,
        paper="arXiv:2507.18071",
        ratio=denominator.old_sequence_mean,
        mask=_clip(config),
        credit=partial(baseline.group_normalised, eps=config.std_eps),
        per=average.sequence_mean,
        scope="sequence",
    )


def build_cispo(config: CISPO) -> Algorithm:
    """The table's row `cispo`."""
    from posttrain.estimator.parts import average, denominator, mask
    from posttrain.estimator.parts.credit import baseline

    return _group(
        config,
        paper="arXiv:2506.13585",
        ratio=partial(denominator.old_capped, high=config.clip_high),
        mask=mask.keep,
        credit=partial(baseline.group_normalised, eps=config.std_eps),
        per=average.token,
    )


def _clip(config: _Clipped, dual: float | None = None) -> Mask:
    from posttrain.algorithms.terms import clip_mask

    return clip_mask(True, config.clip_low, config.clip_high, dual)


def _native(config: _Clipped, dual: float | None = None) -> tuple[Metric, ...]:
    from posttrain.estimator.algorithm import Metric
    from posttrain.estimator.parts import metric as objective

    clipped = partial(objective.clipped_surrogate, low=config.clip_low, high=config.clip_high, dual=dual)
    return (Metric("objective/clipped", clipped),)


def _group(
    config: GRPO | DrGRPO | DAPO | GSPO | CISPO,
    *,
    paper: str,
    ratio: Part,
    mask: Mask,
    credit: Callable[[Batch], Batch],
    per: Average,
    metrics: tuple[Metric, ...] = (),
    scope: Literal["token", "sequence"] = "token",
    resample: bool = False,
) -> Algorithm:
    from posttrain.algorithms.terms import entropy_penalties, kl_terms, less_kl, needs, policy_term
    from posttrain.estimator.algorithm import Algorithm

    in_reward = config.kl_in == "reward"
    policy = policy_term(config, per, mask=mask, denominator=ratio, metrics=metrics)
    return Algorithm(
        name=config.name,
        paper=paper,
        needs=needs(config, scope=scope, kl_in_reward=in_reward, resample=resample),
        terms=(policy, *(() if in_reward else kl_terms(config.kl_coef, config.kl or "k3", per))),
        penalties=entropy_penalties(config.entropy_coef),
        credit=less_kl(config.kl_coef, credit) if in_reward else credit,
    )
