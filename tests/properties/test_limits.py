"""Special cases: where two algorithms are one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given

from cases import Case, close, differentiate, over, sample, shapes, stand_in
from posttrain import Algorithm, Batch, build_algorithm
from posttrain.estimator.parts import average

INFINITY = 1e9
NO_CLIP = {"clip_low": INFINITY, "clip_high": INFINITY}
Build = tuple[str, dict[str, Any]]
Change = Callable[[Batch, torch.Tensor], Batch]


def as_drawn(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch


def at_start(batch: Batch, logp: torch.Tensor) -> Batch:
    """The policy is still the old and the reference one, the sampler agrees with it, and so does a teacher."""
    return batch.replace(old_logp=logp, ref_logp=logp, behavior_logp=logp, teacher_logp=logp)


def one_token_rows(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(loss_mask=batch.loss_mask & (batch.loss_mask.cumsum(-1) == 1))


def demonstrated(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(origin=torch.ones_like(batch.origin))


def all_right(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(reward=torch.ones_like(batch.group, dtype=torch.float64))


def no_group_is_equal(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(reward=torch.arange(len(batch.group)).double())


def whole_rows(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(loss_mask=torch.ones_like(batch.loss_mask))


def graded_by_sign(batch: Batch, logp: torch.Tensor) -> Batch:
    """The reward is 1 for right answers, -1 for wrong ones."""
    assert batch.correct is not None
    return batch.replace(reward=2 * batch.correct.double() - 1)


def without_reference(batch: Batch, logp: torch.Tensor) -> Batch:
    """Every completion is as likely to the reference."""
    return batch.replace(ref_logp=torch.zeros_like(logp))


def worth_nothing(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(baseline=torch.zeros(len(batch.group), dtype=logp.dtype))


def all_taught(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(taught=torch.ones_like(batch.loss_mask[:, 0]))


def none_taught(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(taught=torch.zeros_like(batch.loss_mask[:, 0]))


def far_behind(batch: Batch, logp: torch.Tensor) -> Batch:
    """The policy prefers every rejected completion, against the reference, by 20 nats for each token at least."""
    assert batch.chosen is not None
    return batch.replace(ref_logp=logp + 20 * batch.chosen[:, None])


OF_PAIRS: dict[str, tuple[Build, Build, Change]] = {
    "robust dpo: no label is flipped": (("robust_dpo", {"flipped": 0.0}), ("dpo", {}), as_drawn),
    "a hinge without a reference": (
        ("hinge_dpo", {"beta": 1.0}),
        ("slic", {"delta": 1.0, "sft_coef": 0.0}),
        without_reference,
    ),
    "nca at the start": (("nca", {"beta": 0.2}), ("dpo", {"beta": 0.1}), at_start),
    "bco_pair at the start": (("bco_pair", {}), ("dpo", {}), at_start),
    "sppo at the start": (("sppo", {"beta": 0.3}), ("ipo", {"beta": 0.3}), at_start),
    "apo_zero at the start": (("apo_zero", {"beta": 0.2}), ("dpo", {"beta": 0.1}), at_start),
    "discopop far below 0": (("discopop", {"tau": 0.01}), ("dpo", {"beta": 0.05}), far_behind),
    "dpop without its price": (("dpop", {"penalty": 0.0}), ("dpo", {"beta": 0.3}), as_drawn),
    "r_dpo: length explains nothing": (("r_dpo", {"length_coef": 0.0}), ("dpo", {}), as_drawn),
    "r_dpo of equal lengths": (("r_dpo", {"length_coef": 0.5}), ("dpo", {}), whole_rows),
    "ln_dpo of one token": (("ln_dpo", {"beta": 0.1}), ("dpo", {}), one_token_rows),
    "ld_dpo: every token counts": (("ld_dpo", {"alpha": 1.0}), ("dpo", {}), as_drawn),
    "ld_dpo of equal lengths": (("ld_dpo", {}), ("dpo", {}), whole_rows),
    "f_dpo of the reverse KL": (("f_dpo", {"divergence": "reverse_kl"}), ("dpo", {}), as_drawn),
    "f_dpo of the forward KL at the start": (("f_dpo", {"divergence": "forward_kl"}), ("dpo", {}), at_start),
    "f_dpo of an alpha-divergence at the start": (("f_dpo", {"divergence": "alpha"}), ("dpo", {}), at_start),
    "f_dpo of Jensen-Shannon at the start": (("f_dpo", {"divergence": "js", "beta": 0.2}), ("dpo", {}), at_start),
    "rpo without likelihood": (("rpo", {"sft_coef": 0.0}), ("dpo", {}), as_drawn),
    "cpo without likelihood": (("cpo", {"sft_coef": 0.0}), ("dpo", {}), without_reference),
    "simpo of one token": (
        ("simpo", {"beta": 0.1, "gamma": 0.0}),
        ("cpo", {"sft_coef": 0.0}),
        one_token_rows,
    ),
    "alpha_po with a small alpha": (("alpha_po", {"alpha": 1e-14}), ("simpo", {}), as_drawn),
}

ALL_GROUPS = {"dynamic_sampling": False, **NO_CLIP}


def weighing_alike(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(weight=torch.ones_like(logp))


def all_forgotten(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(weight=-torch.ones_like(logp))


LIMITS: dict[str, tuple[Build, Build, Change]] = {
    "no anchor": (("asft", {"kl_coef": 0.0}), ("dft", {}), as_drawn),
    "psft's first update": (("psft", {}), ("sft", {}), at_start),
    "psft without clip at the start": (("psft", NO_CLIP), ("sft", {}), at_start),
    "iw_sft at the start": (("iw_sft", {"exponent": 2.0}), ("sft", {}), at_start),
    "iw_sft with a small bound": (("iw_sft", {"exponent": 1e-300}), ("sft", {}), as_drawn),
    "a_lol at the start": (("a_lol", {}), ("a_lol", {"form": "a_lol_free"}), at_start),
    "a_lol_seq at the start": (("a_lol", {"form": "a_lol_seq"}), ("a_lol", {"form": "a_lol_free"}), at_start),
    "a_lol without KL": (("a_lol", {"form": "a_lol_kl", "kl_coef": 0.0}), ("a_lol", {"form": "a_lol_free"}), as_drawn),
    "r_gold of probability 1": (("a_lol", {"form": "r_gold", "floor": 1.0}), ("a_lol", {"form": "wbc"}), as_drawn),
    "rewards that hardly weigh": (("rwr", {"beta": 1e300}), ("sft", {}), as_drawn),
    "advantages that hardly weigh": (("awr", {"beta": 1e300}), ("sft", {}), as_drawn),
    "weights of 1": (("sft", {"weights": "per_token"}), ("sft", {}), weighing_alike),
    "a mean of weights of 1": (("sft", {"weights": "per_weight"}), ("sft", {}), weighing_alike),
    "f_sft by total variation": (("f_sft", {"divergence": "tv", "beta": 1.0}), ("sft", {}), as_drawn),
    "f_sft at the start": (("f_sft", {"beta": 1.0}), ("f_sft", {"beta": 1.0, "divergence": "js"}), at_start),
    "hellinger at the start": (("f_sft", {"beta": 1.0, "divergence": "hellinger"}), ("sft", {}), at_start),
    "a row to be forgotten": (("forget_retain", {"retain_coef": 0.0}), ("ascent", {}), all_forgotten),
    "a row to be forgotten, bounded": (("forget_retain", {"forget": "npo", "retain_coef": 0.0}), ("npo", {}), all_forgotten),
    "npo that never ends": (("npo", {"beta": 1e-300}), ("a_lol", {"form": "wbc"}), all_forgotten),
    "no std, no length": (
        ("dr_grpo", {"max_tokens": 1, **NO_CLIP}),
        ("reinforce", {"baseline": "group_mean"}),
        as_drawn,
    ),
    "greedy answers that earn nothing": (("remax", {}), ("reinforce", {}), worth_nothing),
    "a_star_po at the start": (("a_star_po", {"beta": 0.5}), ("remax", {}), at_start),
    "rec without a bound": (("rec", {**NO_CLIP, "updates": 4}), ("asymre", {"shift": 0.0, "updates": 4}), as_drawn),
    "a ring that begins where the region ends": (
        ("rec", {"region": "ring", "far_low": 0.2, "far_high": 0.2, "updates": 4}),
        ("rec", {"updates": 4}),
        as_drawn,
    ),
    "opmd's mean where steps are whole": (
        ("opmd", {"baseline": "mean", "temperature": 1e-300}),
        ("asymre", {"shift": 0.0}),
        as_drawn,
    ),
    "rloo's first update": (("rloo", {"updates": 4}), ("rloo", {}), at_start),
    "grpo's first update": (("grpo", {"updates": 4}), ("grpo", {}), at_start),
    "k2 and k3 agree at the start": (("grpo", {"kl": "k2"}), ("grpo", {"kl_coef": 0.0}), at_start),
    "rows of one token": (
        ("gspo", {"updates": 4, "clip_low": 0.2, "clip_high": 0.2}),
        ("grpo", {"updates": 4, "kl_coef": 0.0}),
        one_token_rows,
    ),
    "no clip, as a weight or as a mask": (
        ("cispo", {"updates": 4, "clip_high": INFINITY}),
        ("dapo", {"updates": 4, "dynamic_sampling": False, **NO_CLIP}),
        as_drawn,
    ),
    "gmpo without its bounds": (("gmpo", {"updates": 4, **NO_CLIP}), ("gspo", {"updates": 4, **NO_CLIP}), as_drawn),
    "a gate that does not fade": (
        ("sapo", {"updates": 4, "temperature_positive": 1e-9, "temperature_negative": 1e-9}),
        ("grpo", {"updates": 4, "kl_coef": 0.0, **NO_CLIP}),
        as_drawn,
    ),
    "sapo's first update": (("sapo", {"updates": 4}), ("grpo", {"kl_coef": 0.0}), at_start),
    "no probability moves by more than 1": (
        ("dppo", {"updates": 4, "limit": 1.0}),
        ("cispo", {"updates": 4, "clip_high": 19.0}),
        as_drawn,
    ),
    "a KL that is never reached": (
        ("dppo", {"updates": 4, "divergence": "kl", "limit": INFINITY}),
        ("cispo", {"updates": 4, "clip_high": 19.0}),
        as_drawn,
    ),
    "vespo's first update": (("vespo", {"updates": 4}), ("dapo", ALL_GROUPS), at_start),
    "gpg where every group has a signal": (("gpg", {"std": True}), ("dapo", ALL_GROUPS), no_group_is_equal),
    "a policy that is not held": (("dro", {"beta": 0.0}), ("dapo", ALL_GROUPS), as_drawn),
    "dro's first update": (("dro", {"updates": 4}), ("dapo", ALL_GROUPS), at_start),
    "answers of one length": (("opo", {}), ("asymre", {"shift": 0.0}), whole_rows),
    "every question counts": (("f_grpo", {"power": 0.0}), ("grpo", {"kl_coef": 0.0}), as_drawn),
    "all tokens are undecided": (
        ("top_entropy", {"updates": 4, "keep": 1.0}),
        ("dapo", {"updates": 4, "dynamic_sampling": False}),
        as_drawn,
    ),
    "no covariance is high": (
        ("clip_cov", {"updates": 4, "low": 1e8, "high": 1e9, "clip_high": 0.28}),
        ("dapo", {"updates": 4, "dynamic_sampling": False}),
        as_drawn,
    ),
    "no token is held": (("kl_cov", {"updates": 4, "kl_cov_coef": 0.0}), ("dapo", {"updates": 4, **ALL_GROUPS}), as_drawn),
    "kl_cov's first update": (("kl_cov", {"updates": 4}), ("dapo", ALL_GROUPS), at_start),
    "a weight that is 1": (
        ("grpo_lead", {"least": 1.0, "most": 1.0, "length": 0.0}),
        ("dapo", {"dynamic_sampling": False}),
        graded_by_sign,
    ),
    "samples of the policy itself": (("p3o", {}), ("dapo", ALL_GROUPS), at_start),
    "topr's first update": (("topr", {"updates": 4}), ("reinforce", {}), at_start),
    "no wrong answer": (("topr", {"updates": 4}), ("reinforce", {}), all_right),
    "rows of one token count as one": (
        ("gspo", {"updates": 4, "average": "sequence_sum"}),
        ("gspo", {"updates": 4}),
        one_token_rows,
    ),
    "an unbiased KL's first update": (("grpo", {"kl": "unbiased"}), ("grpo", {"kl": "k2"}), as_drawn),
    "no row is too stale": (("grpo", {"updates": 4, "off_policy_mask": 1e9}), ("grpo", {"updates": 4}), as_drawn),
    "a teacher that weighs nothing": (("kd", {"alpha": 0.0}), ("sft", {}), as_drawn),
    "a teacher that may pull by nothing": (
        ("opd", {"updates": 4, "reward_coef": 1.0, "kl_max": 1e-300}),
        ("dapo", {"updates": 4, "dynamic_sampling": False, "clip_high": 0.2}),
        as_drawn,
    ),
    "a teacher that is the student": (
        ("opd", {"updates": 4, "reward_coef": 1.0}),
        ("dapo", {"updates": 4, "dynamic_sampling": False, "clip_high": 0.2}),
        at_start,
    ),
    "sampled tokens, whoever teaches": (("sdft", {"compare": "tokens"}), ("opd", {}), as_drawn),
    "distributions, whoever teaches": (("sdft", {"beta": 0.3}), ("gkd", {"beta": 0.3}), as_drawn),
    "each answer has a right one beside it": (("sdpo", {}), ("sdft", {"compare": "tokens"}), all_taught),
    "no answer has a right one beside it": (
        ("sdpo", {"updates": 4, "distillation_weight": 0.4}),
        ("opd", {"updates": 4, "reward_coef": 0.6, "kl_max": 1e-300}),
        none_taught,
    ),
    "a dual clip that is never reached": (
        ("grpo", {"updates": 4, "dual_clip": 1e9}),
        ("grpo", {"updates": 4}),
        as_drawn,
    ),
    **{
        f"{level} {form}: the sampler is the trainer": (
            ("grpo", {"updates": 4, "correction": {"level": level, "form": form}}),
            ("grpo", {"updates": 4}),
            at_start,
        )
        for level in ("token", "sequence", "geometric")
        for form in ("truncate", "mask")
    },
    **{
        f"{level}: nobody sampled": (
            ("grpo", {"updates": 4, "correction": {"level": level, "form": "mask"}}),
            ("grpo", {"updates": 4}),
            demonstrated,
        )
        for level in ("token", "sequence", "geometric")
    },
}


@pytest.mark.parametrize(("one", "other", "change"), [*LIMITS.values(), *OF_PAIRS.values()], ids=[*LIMITS, *OF_PAIRS])
@given(shape=shapes)
def test_limit(one: Build, other: Build, change: Change, shape: dict[str, int]) -> None:
    gradients = []
    for name, options in (one, other):
        # One batch for both, with every field that either of them asks for.
        algorithm, drawn = build_algorithm(name, **options), sample(richest(one, other), **shape)
        batch = algorithm.prepare(change(drawn.batch, drawn.inputs()["logp"]))
        inputs = dataclasses.replace(drawn, algorithm=algorithm).inputs()
        gradients.append(differentiate(algorithm, batch, inputs)[1]["logp"])
    close(gradients[0], gradients[1])


def richest(*builds: Build) -> Algorithm:
    """A stand-in that needs what each of them needs."""
    return stand_in([build_algorithm(name, **options) for name, options in builds])


@given(shape=shapes)
def test_unclipped_grpo_is_reinforce_with_the_same_advantage(shape: dict[str, int]) -> None:
    grpo, reinforce = build_algorithm("grpo", kl_coef=0.0, **NO_CLIP), build_algorithm("reinforce")
    (term,) = reinforce.terms
    per_row = dataclasses.replace(reinforce, terms=(dataclasses.replace(term, average=average.sequence_mean),))
    drawn = sample(grpo, **shape)
    batch, inputs = grpo.prepare(drawn.batch), drawn.inputs()
    close(differentiate(grpo, batch, inputs)[1], differentiate(per_row, batch, inputs)[1])


@given(shape=shapes)
def test_a_correction_times_the_clip_is_decoupled_ppo(shape: dict[str, int]) -> None:
    """-min(r A, clip(r) A) · sg(pi_old/pi_behavior), r = pi/pi_old: the policy that samples and the one that the region is
    around are two (arXiv:2110.00641, arXiv:2505.24298)."""
    algorithm = build_algorithm("dapo", updates=4, dynamic_sampling=False, correction={"cap": 1e9})
    drawn = sample(algorithm, **shape)
    batch, logp = algorithm.prepare(drawn.batch), drawn.inputs()["logp"].requires_grad_()
    assert batch.old_logp is not None and batch.behavior_logp is not None and batch.advantage is not None
    ratio = (logp - batch.old_logp).exp()
    gain = torch.minimum(ratio * batch.advantage, ratio.clamp(0.8, 1.28) * batch.advantage)
    weight = torch.where(batch.origin == 0, (batch.old_logp - batch.behavior_logp).exp(), 1.0)
    select = batch.loss_mask
    loss = -torch.where(select, weight * gain, 0.0).sum() / select.sum().clamp(min=1)
    (expected,) = torch.autograd.grad(loss, logp)
    close(differentiate(algorithm, batch, {"logp": logp})[1]["logp"], expected)


@given(shape=shapes)
def test_equal_weights_are_all_effective(shape: dict[str, int]) -> None:
    drawn = sample(build_algorithm("p3o"), **shape)
    behavior = drawn.batch.old_logp
    assert behavior is not None
    batch = drawn.batch.replace(behavior_logp=behavior + 0.7, origin=torch.zeros_like(drawn.batch.origin))
    weighted, plain = (build_algorithm(name).prepare(batch).advantage for name in ("p3o", "grpo"))
    assert weighted is not None and plain is not None
    close(torch.where(batch.loss_mask, weighted, 0.0), torch.where(batch.loss_mask, plain * math.exp(-0.7), 0.0))


@given(shape=shapes)
def test_dro_rests_where_the_log_ratio_is_the_advantage_over_beta(shape: dict[str, int]) -> None:
    algorithm = build_algorithm("dro", beta=0.4, updates=4)
    drawn = sample(algorithm, **shape)
    batch, inputs = algorithm.prepare(drawn.batch), drawn.inputs()
    assert batch.advantage is not None
    resting = batch.replace(old_logp=inputs["logp"] - batch.advantage / 0.4)
    assert differentiate(algorithm, resting, inputs)[1]["logp"].abs().max() < 1e-14


def prepared_advantage(algorithm: Algorithm, **fields: Any) -> torch.Tensor:
    rows = len(fields["reward"])
    batch = Batch(loss_mask=torch.ones(rows, 2, dtype=torch.bool), group=torch.zeros(rows, dtype=torch.int64), **fields)
    advantage = algorithm.prepare(batch).advantage
    assert advantage is not None
    return advantage[:, 0]


def test_one_try_is_a_z_score_with_the_biased_deviation() -> None:
    right = torch.tensor([True, False, False, True, False])
    advantage = prepared_advantage(build_algorithm("pass_k", k=1, rollouts=5), reward=right.double(), correct=right)
    score = (right.double() - 0.4) / right.double().std(correction=0)
    torch.testing.assert_close(advantage, score, rtol=1e-14, atol=0)


def test_as_many_wrong_answers_as_tries_cost_nothing_where_the_others_are_right() -> None:
    right = torch.tensor([True, True, True, False])
    advantage = prepared_advantage(build_algorithm("pass_k", k=2, rollouts=4), reward=right.double(), correct=right)
    assert not advantage.any()  # every pair has a right one
    assert prepared_advantage(build_algorithm("pass_k", k=1, rollouts=4), reward=right.double(), correct=right).any()


def test_a_soft_maximum_is_the_largest_reward_or_the_mean() -> None:
    reward = torch.tensor([1.0, 3.0, 2.0, 7.0], dtype=torch.float64)
    hard, flat = (prepared_advantage(build_algorithm("opmd", temperature=t), reward=reward) * (1 + t) for t in (1e-3, 1e6))
    torch.testing.assert_close(hard, reward - 7, rtol=0, atol=2e-3)  # 1e-3 · log 4
    torch.testing.assert_close(flat, reward - reward.mean(), rtol=0, atol=1e-5)


def test_decoupled_rewards_of_one_are_grpo_before_they_are_whitened() -> None:
    reward = torch.tensor([1.0, 3.0, 2.0, 7.0], dtype=torch.float64)
    alone = prepared_advantage(build_algorithm("gdpo"), reward=reward, rewards_by_name={"one": reward})
    plain = prepared_advantage(build_algorithm("grpo"), reward=reward)
    torch.testing.assert_close(alone / alone.std(), plain / plain.std(), rtol=1e-12, atol=0)


def test_a_large_reward_does_not_drown_a_small_one() -> None:
    large, small = torch.tensor([100.0, 0.0, 100.0, 0.0]).double(), torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    decoupled = prepared_advantage(
        build_algorithm("gdpo"), reward=large + small, rewards_by_name={"large": large, "small": small}
    )
    assert decoupled[0] == pytest.approx(float(decoupled[3]), abs=1e-3)  # each has one of the two
    assert prepared_advantage(build_algorithm("grpo"), reward=large + small)[0] > 0.8


@given(shape=shapes)
def test_clip_cov_leaves_out_a_share_and_kl_cov_marks_one(shape: dict[str, int]) -> None:
    drawn = sample(build_algorithm("kl_cov", share=0.4, updates=2), **shape)
    tokens = int(drawn.batch.loss_mask.sum())
    marked = drawn.algorithm.prepare(drawn.batch).mark
    assert marked is not None and int(marked.sum()) == min(max(int(0.4 * tokens), 1), tokens)
    assert not (marked & ~drawn.batch.loss_mask).any()
    plain = build_algorithm("clip_cov", low=-1e8, high=1e9, share=0.4).prepare(drawn.batch).advantage
    whole = build_algorithm("dapo", dynamic_sampling=False).prepare(drawn.batch).advantage
    assert plain is not None and whole is not None
    assert int((plain != whole).sum()) <= max(int(0.4 * tokens), 1)
    nothing = build_algorithm("clip_cov", low=-1e8, high=1e9, share=1.0).prepare(drawn.batch).advantage
    assert nothing is not None and not nothing[drawn.batch.loss_mask].any()


def has_a_margin(case: Case) -> bool:
    """Its loss is of the margin against a reference: one without a reference has another, or none."""
    return any(metric.name == "preference/margin" for term in case.algorithm.terms for metric in term.metrics)


@over(has_a_margin)
@given(shape=shapes)
def test_swapping_chosen_and_rejected_turns_the_margin(case: Case, shape: dict[str, int]) -> None:
    drawn = sample(case.algorithm, **shape)
    swapped = torch.arange(len(drawn.logits)).view(-1, 2).flip(1).flatten()
    turned = drawn.batch.replace(chosen=None, unit=1).take(swapped).replace(chosen=drawn.batch.chosen)
    logp = drawn.inputs()["logp"]
    metrics, turned_metrics = (
        differentiate(case.algorithm, batch, {"logp": values})[0].metrics
        for batch, values in ((drawn.batch, logp), (turned, logp[swapped]))
    )
    close(turned_metrics["preference/margin"], -metrics["preference/margin"])
    close(turned_metrics["preference/accuracy"], 1 - metrics["preference/accuracy"])


def compares_with_itself(case: Case) -> bool:
    needs = case.algorithm.needs
    return bool(needs.updates == 1 and needs.rollouts and needs.demonstration in ("none", "prefix"))


@over(compares_with_itself)
@given(shape=shapes)
def test_on_policy_the_ratio_is_one_and_nothing_is_clipped(case: Case, shape: dict[str, int]) -> None:
    drawn = sample(case.algorithm, **shape)
    old = drawn.inputs()["logp"] if case.algorithm.needs.old_logp else None
    batch = case.algorithm.prepare(drawn.batch.replace(old_logp=old))
    metrics = differentiate(case.algorithm, batch, drawn.inputs())[0].metrics
    expected = float(any(bool(term.select(batch).any()) for term in case.algorithm.terms))
    assert metrics.get("ratio/mean", expected) == pytest.approx(expected, abs=1e-12)
    assert metrics.get("mask/dropped_fraction", 0) == metrics.get("ratio/capped_fraction", 0) == 0
