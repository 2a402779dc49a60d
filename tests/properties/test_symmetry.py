"""Rows have no order, rewards have no zero, and no signal means no gradient."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cases import Case, close, differentiate, on_policy, over, prepared, sample, shapes
from posttrain import Batch, build_algorithm
from posttrain.estimator.parts.advantage import given as given_by_prepare


def has_baseline(case: Case) -> bool:
    baseline = case.options.get("baseline")
    own = {"reinforce": baseline, "topr": False, "prefix_rft": baseline != "uncentred"}
    own["hpt"] = case.options.get("gate_off") is None
    own["reinforce_pp"] = baseline or case.options.get("discount", 1.0) == 1.0
    return on_policy(case) and bool(own.get(case.name, True))


def is_policy_gradient_only(case: Case) -> bool:
    algorithm = case.algorithm
    alone = len(algorithm.terms) == 1 and algorithm.terms[0].estimator.advantage is given_by_prepare
    return on_policy(case) and alone and not algorithm.penalties


@over(each="part")
@given(shape=shapes)
def test_permuted_rows_and_renamed_groups_permute_the_gradient(case: Case, shape: dict[str, int]) -> None:
    drawn = sample(case.algorithm, **shape)
    random = torch.Generator().manual_seed(shape["seed"])
    units = torch.arange(len(drawn.logits)).view(-1, case.algorithm.needs.unit)
    order = units[torch.randperm(len(units), generator=random)].flatten()
    names = torch.randperm(1000, generator=random)
    permuted = drawn.batch.take(order)
    permuted = permuted.replace(group=names[permuted.group])
    output, gradient = differentiate(case.algorithm, case.algorithm.prepare(drawn.batch), drawn.inputs())
    permuted_output, permuted_gradient = differentiate(
        case.algorithm,
        case.algorithm.prepare(permuted),
        {name: value[order] for name, value in drawn.inputs().items()},
    )
    close(permuted_gradient, {name: value[order] for name, value in gradient.items()})
    torch.testing.assert_close(permuted_output.metrics, output.metrics, rtol=1e-11, atol=1e-13)


@over(is_policy_gradient_only, each="part")
@given(shape=shapes)
def test_no_advantage_is_no_gradient(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    assert batch.advantage is not None
    _, gradient = differentiate(algorithm, batch.replace(advantage=torch.zeros_like(batch.advantage)), inputs)
    assert (gradient["logp"] == 0).all()


@over(has_baseline, each="part")
@given(shape=shapes, shift=st.floats(-5, 5))
def test_rewards_have_no_zero(case: Case, shape: dict[str, int], shift: float) -> None:
    drawn = sample(case.algorithm, **shape)
    level = drawn.batch.baseline
    shifted = drawn.batch.replace(reward=drawn.reward + shift, baseline=None if level is None else level + shift)
    expected, actual = (
        differentiate(case.algorithm, case.algorithm.prepare(batch), drawn.inputs())[1] for batch in (drawn.batch, shifted)
    )
    # R + shift is rounded, and a small std magnifies it.
    close(actual, expected, rtol=1e-9)


BASELINES = [
    ("grpo", {"kl_coef": 0.0}),
    ("dr_grpo", {"max_tokens": 4}),
    ("dapo", {"dynamic_sampling": False}),
    ("reinforce", {"baseline": "group_mean"}),
    ("rloo", {"kl_coef": 0.0}),
    ("gpg", {}),
    ("opo", {}),
    ("best_of_group", {"std": False}),
    ("gdpo", {}),
    ("opmd", {}),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(("name", "options"), BASELINES, ids=[name for name, _ in BASELINES])
def test_equal_rewards_are_exactly_no_signal(name: str, options: dict[str, float], dtype: torch.dtype) -> None:
    """Not nearly none: rows whose weight is zero are skipped, and the std of rounding errors would be a divisor."""
    algorithm = build_algorithm(name, **options)
    for size, reward in product(range(1, 10), (0.0, 1.0, 0.1, -0.3, 0.7, 1.1)):
        batch = Batch(
            loss_mask=torch.ones(size, 2, dtype=torch.bool),
            group=torch.zeros(size, dtype=torch.int64),
            reward=torch.full((size,), reward, dtype=dtype),
        )
        advantage = algorithm.prepare(batch).advantage
        assert advantage is not None
        assert not advantage.any(), (size, reward)


def _normalises_rewards(case: Case) -> bool:
    in_reward = case.options.get("kl_in") == "reward"  # the KL keeps its unit
    return case.name in ("grpo", "dapo", "gspo", "cispo", "gmpo", "sapo", "dppo", "vespo") and not in_reward


@over(_normalises_rewards, each="part")
@given(shape=shapes, scale=st.floats(0.5, 4))
def test_normalised_advantages_have_no_unit(case: Case, shape: dict[str, int], scale: float) -> None:
    drawn = sample(case.algorithm, **shape)
    scaled = drawn.batch.replace(reward=drawn.reward * scale)
    expected, actual = (case.algorithm.prepare(batch).advantage for batch in (drawn.batch, scaled))
    spreads = drawn.reward.view(-1, 4).std(-1)
    eps = 1e-4  # scale (s + eps) / (scale s + eps) differs from 1 by less than this bound
    bound = eps * abs(scale - 1) / (scale * spreads[spreads > 1e-9].min()) + 1e-9
    close(actual, expected, rtol=float(bound))
