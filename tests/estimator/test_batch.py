"""`Batch`: what it fills in, what it refuses, and how it is split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jaxtyping
import pytest
import torch

from posttrain import Batch, Origin, build_algorithm, policy_gradient_loss

MASK = torch.ones(4, 3, dtype=torch.bool)
PAIRS = torch.tensor([True, False, True, False])


@pytest.fixture
def as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the shape checks of the test run, which would answer before the package's own message."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_only_the_mask_is_required() -> None:
    batch = Batch(loss_mask=MASK)
    assert (batch.origin == Origin.ROLLOUT).all() and batch.origin.shape == MASK.shape
    assert batch.group.tolist() == [0, 1, 2, 3]
    assert batch.progress == 0
    assert batch.rewards_by_name == {}
    assert batch.unit == 1
    given = {"loss_mask", "origin", "group", "progress", "unit", "coefficients", "rewards_by_name"}
    others = {field.name for field in dataclasses.fields(Batch)} - given
    assert [name for name in others if getattr(batch, name) is not None] == []


def test_fields_are_named() -> None:
    with pytest.raises(TypeError):
        Batch(MASK)  # type: ignore[misc]


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokens", torch.zeros(4, 2, dtype=torch.int64)),
        ("old_logp", torch.zeros(3, 3)),
        ("ref_logp", torch.zeros(4)),
        ("advantage", torch.zeros(4)),
        ("reward", torch.zeros(3)),
        ("reward", torch.zeros(4, 3)),
        ("group", torch.zeros(4, 1, dtype=torch.int64)),
    ],
)
def test_a_field_of_another_shape_is_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"Batch\.{name} has shape .*; loss_mask asks for \(4"):
        Batch(loss_mask=MASK, **{name: value})


@pytest.mark.parametrize("chosen", [[False, True, False, True], [True, True, False, False], [True] * 4])
def test_chosen_alternates(chosen: list[bool]) -> None:
    with pytest.raises(ValueError, match="must alternate True, False"):
        Batch(loss_mask=MASK, chosen=torch.tensor(chosen))


def test_a_preference_has_two_rows() -> None:
    with pytest.raises(ValueError, match="3 rows are no whole units of 2"):
        Batch(loss_mask=MASK[:3], chosen=PAIRS[:3])


def test_of_a_unit_of_three_the_first_is_chosen_and_none_is_taken_alone() -> None:
    mask, chosen = torch.ones(6, 2, dtype=torch.bool), torch.arange(6) % 3 == 0
    batch = Batch(loss_mask=mask, chosen=chosen, group=torch.arange(6), unit=3)
    assert batch.take([3, 4, 5, 0, 1, 2]).group.tolist() == [3, 4, 5, 0, 1, 2]
    for rows in ([0, 1], [0, 1, 2, 3], [1, 2, 3], [0, 2, 1]):
        with pytest.raises(ValueError, match=r"cut a unit of 3 rows: take rows 3i to 3i\+2 together"):
            batch.take(rows)
    with pytest.raises(ValueError, match="True in row 3i, and nowhere else"):
        Batch(loss_mask=mask, chosen=torch.arange(6) % 2 == 0, unit=3)
    with pytest.raises(ValueError, match="no whole units of 3"):
        Batch(loss_mask=mask[:4], unit=3)


@pytest.mark.parametrize("rows", [[0], [1, 2], [1, 0], [0, 1, 2], [0, 3], [0, 2], [0, 2, 1, 3]])
def test_take_never_cuts_a_pair(rows: list[int]) -> None:
    with pytest.raises(ValueError, match="cut a preference pair"):
        Batch(loss_mask=MASK, chosen=PAIRS).take(rows)


@pytest.mark.parametrize("rows", [[2, 3, 0, 1], [2, 3], [], torch.tensor([0, 1])])
def test_take_moves_whole_pairs(rows: Any) -> None:
    taken = Batch(loss_mask=MASK, chosen=PAIRS, group=torch.tensor([5, 5, 6, 6])).take(rows)
    assert taken.group.tolist() == [[5, 5, 6, 6][row] for row in rows]


def test_take_takes_the_rows_of_every_field() -> None:
    number = torch.arange(4)
    per_row: dict[str, Callable[[], Any]] = {
        "group": lambda: number,
        "reward": number.float,
        "anchor": number.float,
        "baseline": number.float,
        "reward_mask": lambda: number > 0,
        "correct": lambda: number > 1,
        "taught": lambda: number > 2,
        "rewards_by_name": lambda: {"format": number.float()},
    }
    per_token = {"behavior_logp", "old_logp", "ref_logp", "teacher_logp", "advantage", "weight", "entropy", "collision"}
    per_token |= {"token_reward"}
    whole = {"loss_mask", "mark", "tokens", "origin", "version", "turn"}
    values = {name: number[:, None].float().expand(4, 3) for name in per_token}
    values |= {name: number[:, None].expand(4, 3) for name in ("tokens", "version", "turn")}
    values |= {name: number[:, None].expand(4, 3) > 1 for name in ("loss_mask", "mark")}
    values["origin"] = (2 - number[:, None].clamp(max=2)).expand(4, 3)
    batch = Batch(**values, **{name: make() for name, make in per_row.items()}, progress=0.5)
    taken, rows = batch.take([3, 1]), [3, 1]
    for name in per_token | whole | set(per_row) - {"rewards_by_name"}:
        assert torch.equal(getattr(taken, name), getattr(batch, name)[rows]), name
    assert taken.rewards_by_name["format"].tolist() == [3, 1]
    assert taken.progress == 0.5
    known = per_token | whole | set(per_row) | {"chosen", "progress", "coefficients", "unit"}
    assert {field.name for field in dataclasses.fields(Batch)} == known  # a new field is to be taken as well


def test_replace_makes_a_copy_and_checks_it() -> None:
    batch = Batch(loss_mask=MASK)
    assert batch.replace(progress=0.5).progress == 0.5
    assert batch.progress == 0
    with pytest.raises(ValueError, match="alternate"):
        batch.replace(chosen=~PAIRS)


def test_units_of_another_size_are_refused_by_the_loss() -> None:
    mask = torch.ones(6, 2, dtype=torch.bool)
    for name, unit in (("tpo", 2), ("cpo", 3)):
        batch = Batch(loss_mask=mask, chosen=torch.arange(6) % unit == 0, unit=unit)
        with pytest.raises(ValueError, match=f"the batch has units of {unit}"):
            policy_gradient_loss(build_algorithm(name), torch.zeros(6, 2), batch)


def test_what_others_wrote_carries_no_loss() -> None:
    origin = torch.tensor([[Origin.ROLLOUT, Origin.OTHER, Origin.ROLLOUT]])
    batch = Batch(loss_mask=origin == Origin.ROLLOUT, origin=origin)
    with pytest.raises(ValueError, match="OTHER: what others wrote is read, and never learnt"):
        batch.replace(loss_mask=torch.ones(1, 3, dtype=torch.bool))
