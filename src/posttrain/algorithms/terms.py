"""What the algorithms over rollouts share: their needs, the correction, a KL in the loss or the reward, an entropy bonus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from posttrain.algorithms.options import AdaptiveEntropy, AdaptiveKL, Correction, OnRollouts
    from posttrain.estimator import Coefficient, Estimator, Mask, Metric, Part, Penalty, Select, Term
    from posttrain.estimator.batch import Batch
    from posttrain.estimator.needs import Needs
    from posttrain.estimator.parts.average import Average


def needs(
    config: OnRollouts,
    *,
    scope: Literal["token", "sequence"] = "token",
    kl_in_reward: bool = False,
    resample: bool = False,
    branches: bool = False,
    old_logp: bool = False,
    demonstration: Literal["none", "row", "prefix", "separate"] = "none",
    demonstrations: int = 0,
    collected_entropy: Literal["none", "prefix", "rows"] = "none",
    teacher: Literal["none", "logp", "full"] = "none",
    teacher_template: str = "",
    own_teacher: bool = False,
    shows_right: bool = False,
) -> Needs:
    """Old log-probs where several updates need them, a KL in the reward, or `old_logp` says so; of the sampler where the
    config says so.
    """
    from posttrain.estimator.needs import Needs

    sampler = config.old == "sampler"
    sequence = config.correction is not None and config.correction.level != "token"
    return Needs(
        scope="sequence" if sequence else scope,
        rollouts=config.rollouts,
        updates=config.updates,
        old_logp=old_logp or sampler or config.updates > 1 or (kl_in_reward and bool(config.kl_coef)),
        old_of_sampler=sampler,
        corrects=config.corrects,
        measures_tokens=config.measures_tokens,
        ref_logp=bool(config.kl_coef),
        entropy=bool(config.entropy_coef),
        resample=resample,
        branches=branches,
        demonstration=demonstration,
        demonstrations=demonstrations,
        collected_entropy=collected_entropy,
        verdict=config.reads_verdict,
        teacher=teacher,
        teacher_template=teacher_template,
        own_teacher=own_teacher,
        shows_right=shows_right,
    )


def correction_part(config: Correction | None) -> Part:
    """The correction that a config names."""
    from posttrain.estimator.parts import correction

    if config is None:
        return correction.none
    form = {"truncate": correction.truncate, "mask": correction.mask}[config.form]
    level = {"token": correction.token, "sequence": correction.sequence, "geometric": correction.geometric}
    return partial(form, level=level[config.level], cap=config.cap)


def policy_term(
    config: OnRollouts,
    per: Average,
    *,
    mask: Mask,
    denominator: Part | None = None,
    select: Select | None = None,
    coef: Coefficient = 1.0,
    metrics: tuple[Metric, ...] = (),
) -> Term:
    """The policy gradient with the batch's advantages and the config's correction; the denominator is pi_old if not given."""
    from posttrain.estimator import Estimator, Term
    from posttrain.estimator.parts import advantage
    from posttrain.estimator.parts.denominator import old
    from posttrain.estimator.parts.select import everything

    parts = Estimator(
        denominator=denominator or old,
        advantage=advantage.given,
        mask=mask,
        correction=correction_part(config.correction),
    )
    return Term(name="policy", estimator=parts, average=per, select=select or everything, coef=coef, metrics=metrics)


def sft_term(coef: Coefficient, per: Average, estimator: Estimator | None = None, *, select: Select | None = None) -> Term:
    """The likelihood of what was demonstrated, or of other tokens, or another estimator over it."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, denominator, metric
    from posttrain.estimator.parts.select import demonstrations

    likelihood = Estimator(denominator=denominator.current, advantage=advantage.one)
    return Term(
        name="sft",
        estimator=estimator or likelihood,
        average=per,
        select=select or demonstrations,
        coef=coef,
        metrics=(Metric("nll", metric.nll),),
    )


def kl_coefficient(given: float | AdaptiveKL) -> Coefficient:
    """As a config has it: a number, or one that follows the KL."""
    from posttrain.estimator.parts.coefficient import Adaptive, kl_of_collection, towards_kl

    if isinstance(given, int | float):
        return given
    rule = partial(towards_kl, target=given.target)
    return Adaptive(name="kl_coef", start=given.start, measure=kl_of_collection, rule=rule)


def less_kl(coef: float | AdaptiveKL, credit: Callable[[Batch], Batch]) -> Callable[[Batch], Batch]:
    """The credit of rewards from which coef · KL(pi || ref), by the k1 estimate, was taken."""
    from posttrain.estimator.parts.credit import baseline

    return partial(baseline.in_turn, steps=(partial(baseline.less_kl, coef=kl_coefficient(coef)), credit)) if coef else credit


def kl_terms(coef: float | AdaptiveKL, estimate: str, per: Average, select: Select | None = None) -> tuple[Term, ...]:
    """coef · KL(pi || ref) in the loss, averaged like the policy's own term; of all tokens, or those that it selects."""
    from posttrain.estimator import Estimator, Metric, Term
    from posttrain.estimator.parts import advantage, denominator, metric
    from posttrain.estimator.parts.select import everything

    if not coef:
        return ()
    estimators = {
        "k2": Estimator(denominator=denominator.current, advantage=advantage.k2),
        "k3": Estimator(denominator=denominator.current, advantage=advantage.k3),
        "unbiased": Estimator(denominator=denominator.old, advantage=advantage.k2),  # the gradient of r · k3, r and all
    }
    return (
        Term(
            name="kl",
            estimator=estimators[estimate],
            average=per,
            select=select or everything,
            coef=kl_coefficient(coef),
            metrics=(Metric("kl/reference", metric.kl_to_reference),),
        ),
    )


def entropy_penalties(coef: float | AdaptiveEntropy, select: Select | None = None) -> tuple[Penalty, ...]:
    """A bonus of coef · the mean entropy of the policy over the loss tokens, or those that are selected."""
    from posttrain.estimator import Penalty
    from posttrain.estimator.parts.coefficient import Adaptive, above_entropy, entropy_of_collection
    from posttrain.estimator.parts.select import everything

    if not coef:
        return ()
    if isinstance(coef, int | float):
        cost: Coefficient = -coef
    else:
        rule = partial(above_entropy, target=coef.target, delta=coef.delta, most=coef.most)
        cost = Adaptive(name="entropy_coef", start=coef.start, measure=entropy_of_collection, rule=rule, sign=-1.0)
    return (Penalty(name="entropy", quantity="entropy", coef=cost, select=select or everything),)


def group_credit(std: bool, eps: float) -> Callable[[Batch], Batch]:
    """R - mean of the group, divided by its std where the config says so."""
    from posttrain.estimator.parts.credit import baseline

    return partial(baseline.group_normalised, eps=eps) if std else baseline.group_mean


def clip_mask(clip: bool, low: float, high: float, dual: float | None = None) -> Mask:
    """PPO's mask, or none."""
    from posttrain.estimator.parts import mask

    if not clip:
        return mask.keep
    bounds = {"low": low, "high": high}
    return partial(mask.ppo_clip, **bounds) if dual is None else partial(mask.ppo_clip, **bounds, dual=dual)
