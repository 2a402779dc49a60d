"""An algorithm is tried on a small batch: all that there are pass, and what is wrong with another is said."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch

from cases import CASES
from posttrain import build_algorithm
from posttrain.estimator import (
    Algorithm,
    Batch,
    Estimator,
    Needs,
    Penalty,
    Term,
    View,
    policy_gradient_loss,
    row_mean,
)
from posttrain.estimator.needs import PairRule
from posttrain.estimator.parts import advantage, average, denominator
from posttrain.estimator.parts.credit import baseline
from posttrain.estimator.trial import try_out


def made(needs: Needs | None = None, credit: Any = None, penalties: Any = (), **parts: Any) -> Algorithm:
    estimator = Estimator(**{"denominator": denominator.current, "advantage": advantage.one, **parts})
    return Algorithm(
        name="mine",
        paper="mine",
        needs=needs or Needs(scope="token", demonstration="row"),
        terms=(Term(name="main", estimator=estimator, average=average.token),),
        penalties=penalties,
        **({} if credit is None else {"credit": credit}),
    )


ASKED = {
    "ref_logp": False,
    "entropy": False,
    "full_kl": False,
    "verdict": False,
    "preference": False,
    "teacher": "none",
    "anchor": "none",
}
"""Needs, and their values where nothing is asked for. Without old_logp, others stand in."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_algorithm_passes_with_what_it_asks_for_and_no_less(case: Any) -> None:
    needs, before = case.algorithm.needs, torch.get_rng_state()
    try_out(case.algorithm)
    assert torch.equal(torch.get_rng_state(), before)
    for name, nothing in ASKED.items():
        if getattr(needs, name) != nothing:
            with pytest.raises(ValueError):
                try_out(dataclasses.replace(case.algorithm, needs=dataclasses.replace(needs, **{name: nothing})))


def of_row(view: View) -> Any:
    return row_mean(view, view.logp)


def of_place(view: View) -> Any:
    return torch.arange(view.logp.shape[-1]).expand(view.logp.shape).to(view.logp.dtype)


def short(view: View, *_: Any) -> Any:
    return torch.ones(3)


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        (made(advantage=short), r"The advantage short has the shape \(3,\), where \(12, 6\), .* or \(12, 1\)"),
        (made(denominator=short), r"The denominator short has the shape"),
        (made(mask=short), r"The mask short has the shape"),
        (made(correction=short), r"The correction short has the shape"),
        (made(advantage=lambda view: view.logp.mean()), r"The advantage <lambda> has the shape \(\), .*torch.full_like"),
        (made(mask=lambda *_: torch.ones(1, 1, dtype=torch.bool)), r"The mask <lambda> has the shape \(1, 1\)"),
        (made(advantage=advantage.given), r"needs Batch.advantage, .*no ref_logp \(Needs: ref_logp=True\)"),
        (made(denominator=lambda view: view.ref_logp - 1), r"reads ref_logp \(Needs: ref_logp=True\)"),
        (made(advantage=lambda view: view.require("chosen")), r"needs Batch.chosen.*chosen \(Needs: preference=True\)"),
        (made(credit=baseline.group_mean), r"set Batch.reward"),
        (made(advantage=lambda view: 1 / (view.logp * 0)), "not finite"),
        (made(advantage=of_row), 'main depend on other tokens of the row.*scope="sequence"'),
        (made(advantage=of_place), 'a token depends on where it stands in its row.*scope="sequence"'),
        (made(penalties=(Penalty(name="h", quantity="entropy", coef=1.0),)), r"h reads entropy: Needs\(entropy=True\)"),
        (made(penalties=(Penalty(name="k", quantity="kl", coef=1.0),)), r"k reads kl: Needs\(full_kl=True\)"),
    ],
)
def test_what_is_wrong_is_said(algorithm: Algorithm, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        try_out(algorithm)


def test_one_number_for_a_row_will_do_and_a_constant_for_each_token() -> None:
    try_out(made(Needs(scope="sequence", demonstration="row"), advantage=of_row))
    try_out(made(advantage=lambda view: torch.full_like(view.logp, 2.0)))
    assert dataclasses.replace(made(), name="other").name == "other"


def test_a_part_that_reads_what_is_not_there_is_told_the_need_in_a_loop_of_ones_own_too() -> None:
    def drift(view: Any, scale: float) -> Any:
        return scale * (view.logp - view.ref_logp)

    algorithm = made(advantage=partial(drift, scale=2.0))
    logp, batch = torch.zeros(2, 3, requires_grad=True), Batch(loss_mask=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"drift\(scale=2\) reads ref_logp \(Needs: ref_logp=True\), and the batch has none"):
        policy_gradient_loss(algorithm, logp, batch)
    given = policy_gradient_loss(algorithm, logp, batch.replace(ref_logp=torch.ones(2, 3)))
    assert given.loss.isfinite()


def test_a_fault_of_the_parts_own_stays_what_it_is() -> None:
    algorithm = made(advantage=lambda view: view.logp + None)
    with pytest.raises(TypeError, match="NoneType"):
        policy_gradient_loss(algorithm, torch.zeros(1, 2), Batch(loss_mask=torch.ones(1, 2, dtype=torch.bool)))


def test_the_trial_gives_the_names_of_the_metrics() -> None:
    assert {"loss", "loss/main"} <= try_out(made())


PAIRED = {"preference": True, "pairs": PairRule()}


@pytest.mark.parametrize(
    "needs", [{"unit": 3}, {"preference": True, "unit": 4}, {"unit": 0}, {**PAIRED, "unit": 3}, {"crossed": 3, "unit": 4}]
)
def test_a_unit_is_one_that_a_collector_makes(needs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a unit is a pair"):
        Needs(scope="sequence", **needs)


def test_rows_under_several_prompts_are_a_unit_of_their_own() -> None:
    assert Needs(scope="sequence", crossed=3).unit == 9 and Needs(scope="sequence", crossed=3).exact_logp
    for needs in ({"crossed": 1}, {"crossed": 2, "preference": True}, {"crossed": 2, "rollouts": 4}):
        with pytest.raises(ValueError, match="2 prompts or more, of data"):
            Needs(scope="sequence", **needs)  # type: ignore[arg-type]
    for number in (2, 3, 4):  # more rows than the small batch has for others
        assert "objective/sami" in try_out(build_algorithm("sami", principles=number))


def test_an_algorithm_may_leave_out_all_rows_of_the_small_batch() -> None:
    """Whose groups have two right answers of three."""
    assert try_out(build_algorithm("hpt", rollouts=4, max_tokens=8, coefficients=[(0, 1), (0, 0), (0, 0), (0, 0), (1, 0)]))
    with pytest.raises(ValueError, match="all are 0"):
        build_algorithm("hpt", rollouts=2, max_tokens=8, coefficients=[(0, 0)] * 3)
