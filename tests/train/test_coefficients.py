"""Coefficients that follow what is measured: by the rule of their papers, over whole collections, whatever their cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import Batch, PostTrainer, build_algorithm
from posttrain.estimator.parts.coefficient import (
    Adaptive,
    above_entropy,
    coefficient_at,
    entropy_of_collection,
    kl_of_collection,
    towards_kl,
)
from posttrain.estimator.parts.credit.baseline import in_turn, less_kl
from posttrain.estimator.trial import try_out
from tiny import parameters

MakeTrainer = Callable[..., PostTrainer]
FOLLOWING = {
    "rollouts": 2,
    "updates": 2,
    "kl_coef": {"target": 1e-3, "start": 0.2},
    "entropy_coef": {"target": 5.3, "delta": 0.01, "most": 0.015},
}


def test_the_weight_of_a_kl_moves_by_two_hundredths_at_most() -> None:
    assert towards_kl(0.5, 0.11, target=0.1) == pytest.approx((0.505, 0.505))
    assert towards_kl(0.5, 7.0, target=0.1) == pytest.approx((0.51, 0.51))
    assert towards_kl(0.5, -7.0, target=0.1) == pytest.approx((0.49, 0.49))


def test_a_bonus_on_the_entropy_is_there_where_that_is_low() -> None:
    follow = {"target": 0.3, "delta": 0.1, "most": 0.25}
    assert above_entropy(0.1, 0.3, **follow) == pytest.approx((0.2, 0.2))
    assert above_entropy(0.2, 0.1, **follow) == (0.25, 0.25)
    assert above_entropy(0.25, 0.31, **follow) == (pytest.approx(0.15), 0.0)
    assert above_entropy(0.05, 0.31, **follow) == (0.0, 0.0)


def test_what_is_measured_is_of_tokens_that_were_sampled_and_carry_loss() -> None:
    logp = torch.tensor([[-1.0, -2.0, -9.0], [-4.0, -9.0, -9.0]])
    batch = Batch(
        loss_mask=torch.tensor([[True, True, False], [True, False, False]]),
        origin=torch.tensor([[0, 0, 0], [0, 1, 0]]),
        behavior_logp=logp,
        ref_logp=logp - torch.tensor([[0.3, 0.1, 5.0], [0.2, 5.0, 5.0]]),
    )
    assert float(entropy_of_collection(batch)) == pytest.approx(7 / 3)
    assert float(kl_of_collection(batch)) == pytest.approx(0.2, rel=1e-6)
    assert float(kl_of_collection(batch.replace(old_logp=logp + 1))) == pytest.approx(1.2, rel=1e-6)


def test_a_batch_says_what_a_coefficient_is_and_it_begins_where_it_was_told() -> None:
    bonus = build_algorithm("grpo", **FOLLOWING).penalties[0].coef
    batch = Batch(loss_mask=torch.ones(1, 1, dtype=torch.bool))
    assert (
        coefficient_at(bonus, batch) == 0 and coefficient_at(bonus, batch.replace(coefficients={"entropy_coef": 0.3})) == -0.3
    )


def following(target: float) -> Adaptive:
    return Adaptive(name="c", start=0.2, measure=kl_of_collection, rule=partial(towards_kl, target=target))


def by_place(coef: Adaptive, batch: Batch) -> Batch:
    return less_kl(batch, coef=coef)


@dataclass(frozen=True)
class Held:
    coef: Adaptive

    def __call__(self, batch: Batch) -> Batch:
        return less_kl(batch, coef=self.coef)

    made = __call__


@dataclass(frozen=True, slots=True)
class Slotted:
    coefs: Mapping[str, Adaptive]

    def __call__(self, batch: Batch) -> Batch:
        return less_kl(batch, coef=self.coefs["c"])


@pytest.mark.parametrize("where", ["keyword", "place", "list", "closure", "nested", "object", "method", "slots"])
def test_one_that_a_credit_is_made_of_is_found_wherever_it_stands(where: str) -> None:
    c, plain = following(0.1), build_algorithm("reinforce")

    def closed(batch: Batch) -> Batch:
        return less_kl(batch, coef=coefficient_at(c, batch)) if len(batch.loss_mask) else closed(batch)

    credits: dict[str, Callable[[Batch], Batch]] = {
        "keyword": partial(less_kl, coef=c),
        "place": partial(by_place, c),
        "list": partial(in_turn, steps=[partial(less_kl, coef=c)]),  # type: ignore[reportArgumentType]
        "closure": closed,
        "nested": partial(in_turn, steps=(closed, partial(less_kl, coef=following(0.1)))),
        "object": Held(c),
        "method": Held(c).made,
        "slots": Slotted({"c": c}),
    }
    assert replace(plain, credit=credits[where]).adaptive == (c,)


def test_two_of_one_name_are_one_only_where_they_follow_one_rule() -> None:
    two = partial(in_turn, steps=(partial(less_kl, coef=following(0.1)), partial(less_kl, coef=following(0.3))))
    with pytest.raises(ValueError, match="c: two coefficients of this name follow different rules"):
        _ = replace(build_algorithm("reinforce"), credit=two).adaptive


def test_one_that_nobody_keeps_is_refused_beside_others() -> None:
    batch = Batch(loss_mask=torch.ones(1, 1, dtype=torch.bool), coefficients={"kl_coef": 0.1})
    with pytest.raises(ValueError, match="c: nobody keeps this coefficient: the batch has kl_coef"):
        coefficient_at(following(0.1), batch)


HIDDEN = following(0.1)


def of_the_module(batch: Batch) -> Batch:
    return less_kl(batch, coef=HIDDEN)


def test_one_that_nobody_finds_is_refused_before_a_run() -> None:
    """It is a global name's; alone, it would stay where it starts."""
    plain = build_algorithm("grpo", kl_coef=0.2, kl_in="reward")
    with pytest.raises(ValueError, match="c: nobody keeps this coefficient: the batch has none"):
        try_out(replace(plain, credit=partial(in_turn, steps=(of_the_module, plain.credit))))
    try_out(replace(plain, credit=partial(in_turn, steps=(Held(HIDDEN), plain.credit))))


def test_a_bonus_does_not_begin_above_its_most() -> None:
    with pytest.raises(ValueError, match="start: 2 is above most: 1"):
        build_algorithm("grpo", entropy_coef={"target": 0.3, "start": 2, "most": 1})


def trained(make: MakeTrainer, output: str, **options: Any) -> tuple[torch.Tensor, list[dict[str, float]]]:
    made = make("grpo", options=FOLLOWING, output=output, max_steps=6, learning_rate=0.5, **options)
    made.train()
    lines = (Path(str(made.args.output_dir)) / "metrics.jsonl").read_text().splitlines()
    return parameters(made.model), [json.loads(line) for line in lines]


def test_they_follow_their_rules_over_collections_and_no_cut_of_a_step_moves_them(make_trainer: MakeTrainer) -> None:
    whole, steps = trained(make_trainer, "whole")
    collections = steps[::2]
    weight, c, bonus = 0.2, 0.0, 0.0
    for line in collections:
        assert (line["kl_coef"], line["entropy_coef"]) == pytest.approx((weight, bonus), abs=1e-15)
        weight, _ = towards_kl(weight, line["kl_coef/measured"], target=1e-3)
        c, bonus = above_entropy(c, line["entropy_coef/measured"], target=5.3, delta=0.01, most=0.015)
    assert collections[0]["kl_coef/measured"] == pytest.approx(0, abs=1e-6)
    assert collections[2]["kl_coef/measured"] > 1e-3 and len({line["entropy_coef"] for line in collections}) > 1
    cut, others = trained(make_trainer, "cut", micro_rows=2)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-11)
    for one, other in zip(steps, others, strict=True):
        names = {name for name in one if "_coef" in name}
        assert {name: other[name] for name in names} == pytest.approx({name: one[name] for name in names}, rel=1e-9)
