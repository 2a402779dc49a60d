"""The core's numbers by hand, and what `policy_gradient_loss` and `prepare` say of a batch that lacks something."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain import Algorithm, Batch, Estimator, Needs, Term, View, build_algorithm, policy_gradient_loss
from posttrain.estimator.batch import MAX_LOG_RATIO
from posttrain.estimator.parts import advantage, average, correction, denominator, mask
from posttrain.estimator.parts.credit import baseline
from posttrain.estimator.view import row_mean, row_sum

MASK = torch.tensor([[True, True, False], [True, False, False]])
LOGP = torch.tensor([[-1.0, -2.0, -3.0], [-0.5, -0.25, -4.0]], dtype=torch.float64)


def batch(**fields: Any) -> Batch:
    return Batch(loss_mask=MASK, **fields)


def view(logp: Tensor = LOGP, **fields: Any) -> View:
    return View.of(batch(**fields), logp, MASK)


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "count", "scales"),
    [
        (average.token, 3, [1, 1]),
        (average.sequence_mean, 2, [1 / 2, 1]),
        (average.sequence_sum, 2, [1, 1]),
        (average.pair, 1, [1, 1]),
        (average.constant(10), 20, [1, 1]),
    ],
    ids=str,
)
def test_average(kind: average.Average, count: float, scales: list[float]) -> None:
    assert kind.count(MASK) == count
    assert kind.row_scale(MASK)[:, 0].tolist() == scales
    assert kind.count(torch.zeros_like(MASK)) == 0


def test_rows_are_reduced_over_their_selected_tokens() -> None:
    assert row_sum(view(), torch.full_like(LOGP, 3.0)).tolist() == [[6], [3]]
    assert row_mean(view(), torch.full_like(LOGP, 3.0)).tolist() == [[3], [3]]
    nothing = View.of(batch(), LOGP, torch.zeros_like(MASK))
    assert row_mean(nothing, LOGP).tolist() == [[0], [0]]


REWARDS: dict[str, Any] = {
    "group": torch.tensor([7, 7, 7, 3]),
    "reward": torch.tensor([1.0, 0.0, 5.0, 2.0], dtype=torch.float64),
}


@pytest.mark.parametrize(
    ("credit", "expected"),
    [
        (baseline.reward, [1, 0, 5, 2]),
        (baseline.group_mean, [-1, -2, 3, 0]),
        (baseline.leave_one_out, [-1.5, -3, 4.5, 0]),
        (partial(baseline.group_normalised, eps=0.5), [value / (math.sqrt(7) + 0.5) for value in (-1, -2, 3, 0)]),
    ],
)
def test_baseline(credit: Any, expected: list[float]) -> None:
    made = credit(Batch(loss_mask=torch.ones(4, 2, dtype=torch.bool), **REWARDS)).advantage
    assert made.tolist() == [[pytest.approx(value)] * 2 for value in expected]


def test_dynamic_sampling_takes_groups_of_equal_rewards_out_of_the_loss() -> None:
    made = baseline.varying_groups_normalised(Batch(loss_mask=torch.ones(4, 2, dtype=torch.bool), **REWARDS))
    assert made.loss_mask.any(-1).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (partial(correction.truncate, level=correction.token, cap=2.0), [[2, 0.6, 1], [2, 1, 1]]),
        (partial(correction.mask, level=correction.token, cap=2.0), [[0, 0.6, 1], [2, 1, 1]]),
        (partial(correction.truncate, level=correction.sequence, cap=2.0), [[2, 2, 2], [2, 2, 2]]),
        (partial(correction.mask, level=correction.sequence, cap=5.0), [[2.4, 2.4, 2.4], [2, 2, 2]]),
        (partial(correction.mask, level=correction.geometric, cap=1.6), [[2.4**0.5] * 3, [0, 0, 0]]),
    ],
)
def test_correction(part: Any, expected: list[list[float]]) -> None:
    gap = torch.tensor([[4.0, 0.6, 100.0], [2.0, 100.0, 100.0]], dtype=torch.float64).log()
    seen = view(old_logp=LOGP + gap, behavior_logp=LOGP)
    assert part(seen).expand(2, 3).tolist() == [pytest.approx(row) for row in expected]
    demonstrated = view(old_logp=LOGP + gap, behavior_logp=LOGP, origin=torch.ones(2, 3, dtype=torch.int64))
    assert (part(demonstrated) == 1).all()


@pytest.mark.parametrize(
    ("ratio", "sign", "kept"),
    [(1.3, 1, False), (1.3, -1, True), (0.7, 1, True), (0.7, -1, False), (1.2, 1, True), (0.8, -1, True), (9, 0, True)],
)
def test_ppo_clip_drops_what_left_the_trust_region_in_the_direction_of_its_advantage(
    ratio: float, sign: float, kept: bool
) -> None:
    whole = torch.ones_like(LOGP)
    made = mask.ppo_clip(view(), whole * ratio, whole * sign, low=0.2, high=0.2)
    assert torch.equal(made, MASK & kept)


@pytest.mark.parametrize(("ratio", "sign", "kept"), [(3.1, -1, False), (2.9, -1, True), (1.1, 1, True)])
def test_dual_clip(ratio: float, sign: float, kept: bool) -> None:
    whole = torch.ones_like(LOGP)
    assert torch.equal(mask.ppo_clip(view(), whole * ratio, whole * sign, low=0.2, high=0.2, dual=3.0), MASK & kept)


# --- the loss --------------------------------------------------------------------------------------------------------

PLAIN = Algorithm(
    name="plain",
    paper="composed by hand",
    needs=Needs(scope="token"),
    terms=(
        Term(
            name="policy",
            estimator=Estimator(denominator=denominator.old, advantage=advantage.one),
            average=average.token,
        ),
    ),
)


def test_a_log_ratio_is_capped_and_counted() -> None:
    old = LOGP.clone()
    old[0, 0] -= 50
    old[0, 2] -= 50  # not selected, so not counted
    logp = LOGP.clone().requires_grad_()
    output = policy_gradient_loss(PLAIN, logp, batch(old_logp=old))
    output.loss.backward()
    assert output.metrics["ratio/capped_fraction"] == pytest.approx(1 / 3)
    assert logp.grad is not None
    assert -3 * logp.grad[0, 0] == pytest.approx(math.exp(MAX_LOG_RATIO))
    assert -3 * logp.grad[0, 1] == pytest.approx(1)


def test_a_coefficient_may_depend_on_progress() -> None:
    (term,) = PLAIN.terms
    fading = replace(PLAIN, terms=(replace(term, coef=lambda progress: 1 - progress),))
    whole, half = (policy_gradient_loss(fading, LOGP, batch(progress=progress)).loss for progress in (0.0, 0.5))
    assert half == whole / 2


def test_native_metrics_stay_finite_where_a_ratio_overflows() -> None:
    algorithm = build_algorithm("grpo", kl_coef=0.0)
    fields = {"advantage": torch.zeros(2, 3), "old_logp": LOGP.float() - 1000}
    output = policy_gradient_loss(algorithm, LOGP.float(), batch(**fields))
    assert {name: float(value) for name, value in output.metrics.items() if not value.isfinite()} == {}


PAIRS = torch.tensor([True, False])


@pytest.mark.parametrize(
    ("name", "options", "fields", "message"),
    [
        ("dpo", {}, {"chosen": PAIRS}, "dpo compares with a reference policy: set Batch.ref_logp"),
        ("dpo", {}, {"ref_logp": LOGP}, "dpo trains on preference pairs: set Batch.chosen"),
        ("iw_sft", {}, {}, "set Batch.ref_logp"),
        ("grpo", {}, {"advantage": LOGP}, "set Batch.ref_logp"),
        ("psft", {}, {}, "psft makes 8 updates for each collection: set Batch.old_logp"),
        ("grpo", {"kl_coef": 0.0, "updates": 2}, {"advantage": LOGP}, "set Batch.old_logp"),
        ("asft", {}, {}, "asft has a penalty on kl: pass kl="),
        ("reinforce", {"entropy_coef": 0.1}, {"advantage": LOGP}, "reinforce has a penalty on entropy: pass entropy="),
        ("reinforce", {}, {}, "needs Batch.advantage"),
        ("reinforce", {"correction": {}}, {"advantage": LOGP}, "needs Batch.behavior_logp"),
    ],
)
def test_the_loss_says_what_the_batch_lacks(name: str, options: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_gradient_loss(build_algorithm(name, **options), LOGP, batch(**fields))


def test_the_loss_names_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"logp has shape \(2, 2\), the batch's loss_mask \(2, 3\)"):
        policy_gradient_loss(PLAIN, LOGP[:, :2], batch())


@pytest.mark.parametrize(
    ("name", "options", "fields", "message"),
    [
        ("grpo", {}, {}, "set Batch.reward, or Batch.advantage itself"),
        ("rloo", {}, {"reward": LOGP[:, 0]}, "KL penalty in the reward needs Batch.ref_logp"),
        ("rloo", {}, {"reward": LOGP[:, 0], "ref_logp": LOGP}, r"Batch.old_logp \(or behavior_logp\)"),
    ],
)
def test_prepare_says_what_the_batch_lacks(name: str, options: dict[str, Any], fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_algorithm(name, **options).prepare(batch(**fields))


def test_a_given_advantage_stays() -> None:
    made = build_algorithm("grpo").prepare(batch(advantage=LOGP, reward=LOGP[:, 0]))
    assert made.advantage is LOGP


@pytest.mark.parametrize("thing", [PLAIN, PLAIN.terms[0], PLAIN.terms[0].estimator, PLAIN.needs, batch(), view()])
def test_values_are_frozen(thing: Any) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(thing, next(iter(thing.__dataclass_fields__)), None)


def test_a_weighted_mean_has_no_unit_though_its_weights_add_up_to_less_than_1() -> None:
    algorithm = build_algorithm("sft", weights="per_weight")
    losses = [
        policy_gradient_loss(algorithm, LOGP, algorithm.prepare(Batch(loss_mask=MASK, weight=unit * (1 - LOGP)))).loss
        for unit in (1.0, 2.0**-10)
    ]
    assert losses[0] == losses[1] and losses[0] != 0
