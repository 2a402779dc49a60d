"""An algorithm is tried on a small batch: all that there are pass, and what is wrong with another is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from cases import CASES
from posttrain.estimator import Algorithm, Estimator, Needs, Penalty, Term, View, row_mean
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


ASKED = {"ref_logp": False, "entropy": False, "full_kl": False, "verdict": False, "preference": False}
"""Needs, and their values where nothing is asked for. Without old_logp, others stand in."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_algorithm_passes_with_what_it_asks_for_and_no_less(case: Any) -> None:
    needs, before = case.algorithm.needs, torch.get_rng_state()
    try_out(case.algorithm)
    assert torch.equal(torch.get_rng_state(), before)
    for name, nothing in ASKED.items():
        if getattr(needs, name):
            with pytest.raises(ValueError):
                try_out(dataclasses.replace(case.algorithm, needs=dataclasses.replace(needs, **{name: nothing})))


def of_row(view: View) -> Any:
    return row_mean(view, view.logp)


def short(view: View, *_: Any) -> Any:
    return torch.ones(3)


@pytest.mark.parametrize(
    ("algorithm", "says"),
    [
        (made(advantage=short), r"The advantage short has the shape \(3,\), where \(8, 6\), .* or \(8, 1\)"),
        (made(denominator=short), r"The denominator short has the shape"),
        (made(mask=short), r"The mask short has the shape"),
        (made(correction=short), r"The correction short has the shape"),
        (made(advantage=advantage.given), r"needs Batch.advantage, .*no ref_logp \(Needs: ref_logp=True\)"),
        (made(denominator=lambda view: view.ref_logp - 1), r"TypeError.*no ref_logp \(Needs: ref_logp=True\)"),
        (made(advantage=advantage.pair_sign), r"needs Batch.chosen.*chosen \(Needs: preference=True\)"),
        (made(credit=baseline.group_mean), r"set Batch.reward"),
        (made(advantage=lambda view: 1 / (view.logp * 0)), "not finite"),
        (made(advantage=of_row), 'main depend on other tokens of the row.*scope="sequence"'),
        (made(penalties=(Penalty(name="h", quantity="entropy", coef=1.0),)), r"h reads entropy: Needs\(entropy=True\)"),
        (made(penalties=(Penalty(name="k", quantity="kl", coef=1.0),)), r"k reads kl: Needs\(full_kl=True\)"),
    ],
)
def test_what_is_wrong_is_said(algorithm: Algorithm, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        try_out(algorithm)


def test_one_number_for_a_row_or_for_all_will_do() -> None:
    try_out(made(Needs(scope="sequence", demonstration="row"), advantage=of_row))
    try_out(made(advantage=lambda view: torch.tensor(2.0, dtype=view.logp.dtype)))
    assert dataclasses.replace(made(), name="other").name == "other"
