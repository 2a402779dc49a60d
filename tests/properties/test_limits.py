"""Special cases: where two algorithms are one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given

from cases import Case, close, differentiate, over, sample, shapes
from posttrain import Algorithm, Batch, Needs, build_algorithm
from posttrain.estimator.parts import average

INFINITY = 1e9
NO_CLIP = {"clip_low": INFINITY, "clip_high": INFINITY}
Build = tuple[str, dict[str, Any]]
Change = Callable[[Batch, torch.Tensor], Batch]


def as_drawn(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch


def at_start(batch: Batch, logp: torch.Tensor) -> Batch:
    """The policy is still the old and the reference one, and the sampler agrees with it."""
    return batch.replace(old_logp=logp, ref_logp=logp, behavior_logp=logp)


def one_token_rows(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(loss_mask=batch.loss_mask & (batch.loss_mask.cumsum(-1) == 1))


def demonstrated(batch: Batch, logp: torch.Tensor) -> Batch:
    return batch.replace(origin=torch.ones_like(batch.origin))


LIMITS: dict[str, tuple[Build, Build, Change]] = {
    "no anchor": (("asft", {"kl_coef": 0.0}), ("dft", {}), as_drawn),
    "psft's first update": (("psft", {}), ("sft", {}), at_start),
    "psft without clip at the start": (("psft", NO_CLIP), ("sft", {}), at_start),
    "iw_sft at the start": (("iw_sft", {"exponent": 2.0}), ("sft", {}), at_start),
    "iw_sft with a small bound": (("iw_sft", {"exponent": 1e-300}), ("sft", {}), as_drawn),
    "no std, no length": (
        ("dr_grpo", {"max_tokens": 1, **NO_CLIP}),
        ("reinforce", {"baseline": "group_mean"}),
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


@pytest.mark.parametrize(("one", "other", "change"), LIMITS.values(), ids=LIMITS.keys())
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
    algorithms = [build_algorithm(name, **options) for name, options in builds]
    wanted = {
        field.name: max(getattr(algorithm.needs, field.name) for algorithm in algorithms)
        for field in dataclasses.fields(Needs)
        if field.name != "pairs"
    }
    return dataclasses.replace(algorithms[0], needs=Needs(**wanted))


@given(shape=shapes)
def test_unclipped_grpo_is_reinforce_with_the_same_advantage(shape: dict[str, int]) -> None:
    grpo, reinforce = build_algorithm("grpo", kl_coef=0.0, **NO_CLIP), build_algorithm("reinforce")
    (term,) = reinforce.terms
    per_row = dataclasses.replace(reinforce, terms=(dataclasses.replace(term, average=average.sequence_mean),))
    drawn = sample(grpo, **shape)
    batch, inputs = grpo.prepare(drawn.batch), drawn.inputs()
    close(differentiate(grpo, batch, inputs)[1], differentiate(per_row, batch, inputs)[1])


def has_a_margin(case: Case) -> bool:
    """Its loss is of the margin against a reference: one without a reference has another, or none."""
    return any(metric.name == "preference/margin" for term in case.algorithm.terms for metric in term.metrics)


@over(has_a_margin)
@given(shape=shapes)
def test_swapping_chosen_and_rejected_turns_the_margin(case: Case, shape: dict[str, int]) -> None:
    drawn = sample(case.algorithm, **shape)
    swapped = torch.arange(len(drawn.logits)).view(-1, 2).flip(1).flatten()
    turned = drawn.batch.replace(chosen=None).take(swapped).replace(chosen=drawn.batch.chosen)
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
    batch = case.algorithm.prepare(drawn.batch)
    metrics = differentiate(case.algorithm, batch, drawn.inputs())[0].metrics
    expected = float(batch.loss_mask.any())
    assert metrics.get("ratio/mean", expected) == pytest.approx(expected, abs=1e-12)
    assert metrics.get("mask/dropped_fraction", 0) == metrics.get("ratio/capped_fraction", 0) == 0
