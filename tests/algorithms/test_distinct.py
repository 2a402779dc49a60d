"""No two names are one method with other numbers: their weights differ on one batch of their kind, or their needs do."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from cases import differentiate, sample, stand_in
from posttrain import Algorithm, build_algorithm
from posttrain.algorithms import ALGORITHMS, example_values

BY_NEEDS = {("rwr", "awr"): "weight", ("gkd", "sdft"): "own_teacher"}
"""Those of equal weights, and the need by which they are two: what a reward is compared with is made before the loss; who
the teacher is, and what it reads.
"""

OF_FOUR = {"pass_k": {"rollouts": 4, "k": 2}}
"""Whose defaults say nothing of groups as small as they are drawn here."""


def kinds() -> dict[str, list[Algorithm]]:
    """Algorithms by what they train on, how demonstrations stand beside rollouts, what of a teacher they read, and units."""
    found: dict[str, list[Algorithm]] = {}
    for config, value in zip(ALGORITHMS, example_values(), strict=True):
        one = build_algorithm(value.name, **OF_FOUR[value.name]) if value.name in OF_FOUR else value
        needs = one.needs
        found.setdefault(f"{config.trains_on}, {needs.demonstration}, {needs.teacher}, {needs.unit}", []).append(one)
    return found


KINDS = kinds()


def slopes(algorithms: list[Algorithm]) -> dict[str, dict[str, Tensor]]:
    """The gradient of each by what its loss is made of, on one batch."""
    drawn = sample(stand_in(algorithms), units=9, width=6)
    of: dict[str, dict[str, Tensor]] = {}
    for one in algorithms:
        own = dataclasses.replace(drawn, algorithm=one)
        of[one.name] = differentiate(one, one.prepare(drawn.batch), own.inputs())[1]
    return of


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """In all but a factor: one of them may be another step size."""
    if one.keys() != other.keys():
        return False
    a, b = (torch.cat([value.flatten() for value in of.values()]) for of in (one, other))
    return torch.allclose(a / a.norm(), b / b.norm(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [kind for kind, algorithms in KINDS.items() if len(algorithms) > 1])
def test_weights_differ_or_what_is_asked_for(kind: str) -> None:
    algorithms = {one.name: one for one in KINDS[kind]}
    found = slopes(list(algorithms.values()))
    assert all(max(value.abs().max() for value in of.values()) > 0 for of in found.values())
    alike = [pair for pair in itertools.combinations(found, 2) if same(found[pair[0]], found[pair[1]])]
    assert alike == [pair for pair in BY_NEEDS if set(pair) <= algorithms.keys()]
    for one, other in alike:
        need = BY_NEEDS[one, other]
        assert getattr(algorithms[one].needs, need) != getattr(algorithms[other].needs, need)


def test_there_are_as_many_as_are_told() -> None:
    assert len(ALGORITHMS) >= 60
