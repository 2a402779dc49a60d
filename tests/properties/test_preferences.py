"""What each loss of pairs does that the others do not, on pairs whose numbers are given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from posttrain import Batch, build_algorithm
from posttrain.estimator import View


def advantages(name: str, gains: Sequence[float], lengths: Sequence[int] = (1, 1), /, **options: object) -> list[float]:
    """A of the first token of each row, of rows whose log pi - log pi_ref and lengths are these. log pi is -2 for a row."""
    algorithm = build_algorithm(name, **options)
    logp, ref_logp = (torch.zeros(len(gains), max(lengths), dtype=torch.float64) for _ in range(2))
    logp[:, 0] = -2.0
    ref_logp[:, 0] = -2.0 - torch.tensor(gains, dtype=torch.float64)
    batch = Batch(
        loss_mask=torch.arange(max(lengths)) < torch.tensor(lengths)[:, None],
        ref_logp=ref_logp,
        chosen=torch.arange(len(gains)) % 2 == 0,
    )
    term = algorithm.terms[0]
    return term.estimator.weights(View.of(batch, logp, term.select(batch))).value[:, 0].tolist()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_hinge_that_is_reached_pulls_no_more() -> None:
    assert advantages("hinge_dpo", [1.9, 0.0, 2.1, 0.0], [1] * 4, beta=0.5) == [0.5, -0.5, 0.0, 0.0]


def test_exo_stops_where_the_policy_prefers_as_the_label_does() -> None:
    margin = math.log(0.9 / 0.1) / 0.5
    assert advantages("exo", [margin, 0.0], beta=0.5, label_smoothing=0.1) == pytest.approx([0, 0], abs=1e-12)
    assert advantages("exo", [margin + 1, 0.0], beta=0.5, label_smoothing=0.1)[0] < 0


def test_nca_raises_the_chosen_to_two_thirds_whatever_the_margin() -> None:
    chosen, rejected = advantages("nca", [math.log(2) / 0.1, 7.0], beta=0.1)
    assert chosen == pytest.approx(0, abs=1e-12)
    assert rejected == pytest.approx(-0.05 * sigmoid(0.7))


def test_bco_pair_takes_the_two_apart() -> None:
    assert advantages("bco_pair", [3.0, 5.0], beta=0.1) == pytest.approx([0.1 * sigmoid(-0.3), -0.1 * sigmoid(0.5)])


def test_sppo_draws_each_log_ratio_to_its_own_number() -> None:
    assert advantages("sppo", [2.0, -2.0], beta=0.25) == [0.0, 0.0]
    assert advantages("sppo", [2.5, -1.0], beta=0.25) == [-1.0, -2.0]


def test_apo_zero_and_down_are_anchored() -> None:
    q, k = sigmoid(0.3) * sigmoid(-0.3), sigmoid(-0.2) * sigmoid(0.2)
    of_rejected = sigmoid(0.5) * sigmoid(-0.5)
    assert advantages("apo_zero", [3.0, 5.0]) == pytest.approx([0.1 * q, -0.1 * of_rejected])
    assert advantages("apo_down", [3.0, 5.0]) == pytest.approx([0.1 * (k - q), -0.1 * k])
    assert advantages("apo_down", [0.0, 0.0]) == pytest.approx([0.0, -0.025])


def test_discopop_is_the_exponential_loss_far_above_0() -> None:
    assert advantages("discopop", [100.0, 0.0], beta=0.05)[0] == pytest.approx(0.05 * math.exp(-5), rel=1e-9)


def test_dpop_pays_for_a_chosen_completion_that_has_lost() -> None:
    chosen, rejected = advantages("dpop", [-0.1, -0.3], beta=0.3, penalty=50.0)
    assert chosen == pytest.approx(-51 * rejected)
    assert rejected == pytest.approx(-0.3 * sigmoid(-0.3 * (0.2 - 5)))


def test_ld_dpo_weighs_what_the_longer_one_has_more() -> None:
    algorithm = build_algorithm("ld_dpo", alpha=0.25)
    mask = torch.arange(4) < torch.tensor([[4], [2]])
    mask[0, 1] = False  # a hole is no token
    zeros = torch.zeros(2, 4, dtype=torch.float64)
    batch = Batch(loss_mask=mask, ref_logp=zeros, chosen=torch.tensor([True, False]))
    (term,) = algorithm.terms
    value = term.estimator.weights(View.of(batch, zeros, mask)).value / 0.05
    torch.testing.assert_close(value, torch.tensor([[1, 0, 1, 0.25], [-1, -1, 0, 0]], dtype=torch.float64))


@pytest.mark.parametrize(("divergence", "slope"), [("forward_kl", math.exp(1)), ("js", sigmoid(1)), ("alpha", math.exp(0.5))])
def test_f_dpo_pulls_by_the_slope_of_its_divergence(divergence: str, slope: float) -> None:
    """At u = -1: g' is exp(-u), sigmoid(-u) and exp((alpha - 1) u)."""
    chosen, rejected = advantages("f_dpo", [-1.0, -1.0], divergence=divergence, alpha=0.5)
    assert [chosen, rejected] == pytest.approx([0.05 * slope, -0.05 * slope])


def test_r_dpo_leaves_out_of_the_margin_what_length_explains() -> None:
    """Three answers; labels follow quality + 0.3 · length. The loss is least where beta m is the difference of quality."""
    quality, lengths, beta, coef = [0.5, -0.2, 1.0], [1, 4, 2], 0.4, 0.3

    def slopes(scores: Sequence[float], length_coef: float) -> Tensor:
        """The expected slope of the loss by each answer's log-prob, over all ordered pairs."""
        total = torch.zeros(3, dtype=torch.float64)
        for i in range(3):
            for j in set(range(3)) - {i}:
                seen = sigmoid(quality[i] - quality[j] + coef * (lengths[i] - lengths[j]))
                gains, of = [scores[i] / beta, scores[j] / beta], [lengths[i], lengths[j]]
                pulls = advantages("r_dpo", gains, of, beta=beta, length_coef=length_coef)
                total[i] -= seen * pulls[0]
                total[j] -= seen * pulls[1]
        return total

    assert slopes(quality, coef).abs().max() < 1e-12
    assert slopes(quality, 0.0).abs().max() > 0.01  # DPO learns the length with the quality


def test_simpo_sees_no_length() -> None:
    """A completion that is written twice over, at equal probability for each token, has the same margin and half the pull."""
    logp = torch.full((4, 4), -0.5, dtype=torch.float64)
    mask = torch.arange(4) < torch.tensor([[2], [4], [4], [4]])
    batch = Batch(loss_mask=mask, chosen=torch.arange(4) % 2 == 0)
    term = build_algorithm("simpo").terms[0]
    value = term.estimator.weights(View.of(batch, logp, mask)).value[:, 0]
    torch.testing.assert_close(value[0], 2 * value[2], rtol=1e-12, atol=0)
    assert value[2] == pytest.approx(2.0 * sigmoid(1.0) / 4)


@pytest.mark.parametrize(("alpha", "more"), [(0.25, math.exp(0.5)), (-0.25, math.exp(-0.5))])
def test_alpha_po_pulls_more_or_less_at_what_is_unlikely(alpha: float, more: float) -> None:
    """p^(-alpha) times SimPO's pull, p = exp(-2)."""
    options = {"beta": 2.0, "gamma": 0.3}
    plain, shaped = advantages("simpo", [0, 0], **options), advantages("alpha_po", [0, 0], alpha=alpha, **options)
    assert shaped == pytest.approx([more * pull for pull in plain])


def test_orpo_pulls_by_the_odds() -> None:
    """sigmoid(0) / (1 - p), p = exp(-2)."""
    pull = 0.1 * 0.5 / (1 - math.exp(-2))
    assert advantages("orpo", [0, 0], odds_coef=0.1) == pytest.approx([pull, -pull])


@pytest.mark.parametrize(("name", "options"), [("slic", {"delta": 0.5}), ("orpo", {"odds_coef": 0.0})])
def test_where_the_pair_is_satisfied_what_is_chosen_is_imitated(name: str, options: dict[str, float]) -> None:
    algorithm = build_algorithm(name, **options)
    logp = torch.tensor([[-0.1], [-3.0]], dtype=torch.float64)
    batch = Batch(loss_mask=torch.ones_like(logp, dtype=torch.bool), chosen=torch.tensor([True, False]))
    preference, likelihood = (term.estimator.weights(View.of(batch, logp, term.select(batch))) for term in algorithm.terms)
    assert not preference.value.any()
    assert likelihood.value.tolist() == [[1.0], [0.0]]


def test_a_certain_completion_has_finite_odds() -> None:
    logp = torch.zeros(2, 3, dtype=torch.float64)
    batch = Batch(loss_mask=torch.ones_like(logp, dtype=torch.bool), chosen=torch.tensor([True, False]))
    for term in build_algorithm("orpo").terms:
        assert term.estimator.weights(View.of(batch, logp, term.select(batch))).value.isfinite().all()


def of_labels(name: str, gains: Sequence[float], wanted: Sequence[bool], at: float | None, **options: object) -> list[float]:
    """A of completions of one token with these log-ratios and labels; where the step has an anchor, `at` that."""
    algorithm = build_algorithm(name, **options)
    ref_logp = -2.0 - torch.tensor(gains, dtype=torch.float64)[:, None]
    weight = torch.tensor([[1.0 if one else -1.0] for one in wanted], dtype=torch.float64)
    mask, logp = torch.ones_like(ref_logp, dtype=torch.bool), torch.full_like(ref_logp, -2.0)
    anchor = None if at is None else torch.full((len(gains),), at, dtype=torch.float64)
    batch = algorithm.prepare(Batch(loss_mask=mask, ref_logp=ref_logp, weight=weight, anchor=anchor))
    return algorithm.terms[0].estimator.weights(View.of(batch, logp, mask)).value[:, 0].tolist()


def test_kto_pulls_by_the_distance_from_the_anchor_and_the_weight_of_its_label() -> None:
    """±lambda beta q (1 - q), q = sigmoid(beta (u - z0)); a quarter of beta at u = z0."""
    q = sigmoid(0.5 * (1.0 - 3.0))
    pulls = of_labels("kto", [3.0, 3.0, 1.0, 1.0], [True, False] * 2, 3.0, beta=0.5, desirable=1.5, undesirable=0.8)
    assert pulls == pytest.approx([1.5 * 0.125, -0.8 * 0.125, 1.5 * 0.5 * q * (1 - q), -0.8 * 0.5 * q * (1 - q)])


def test_kto_with_the_anchor_zero_is_apo_zero_of_completions_alone() -> None:
    gains = [3.0, 5.0, -1.0, 0.4]
    pulls = advantages("apo_zero", gains, [1] * 4, beta=0.2)
    assert of_labels("kto", gains, [True, False] * 2, None, beta=0.2, anchor="zero") == pytest.approx(pulls, rel=1e-12)
    assert of_labels("kto", gains, [True, False] * 2, 0.0, beta=0.2) == pytest.approx(pulls, rel=1e-12)


def test_bco_of_both_completions_of_pairs_without_a_shift_is_bco_pair() -> None:
    gains = [3.0, 5.0, -1.0, 0.4]
    pulls = advantages("bco_pair", gains, [1] * 4, beta=0.2)
    assert of_labels("bco", gains, [True, False] * 2, 0.0, beta=0.2) == pytest.approx(pulls, rel=1e-12)
    assert of_labels("bco", [3.0, 3.0], [True, False], 3.0, beta=0.5) == [0.25, -0.25]
