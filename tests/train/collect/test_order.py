"""Which rows a step sees: epochs are permutations, a pure function of seed and position."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.train.collect.order import step_indices

sizes, seeds = st.integers(1, 40), st.integers(0, 2**31)


def positions(examples: int, per_step: int, count: int, seed: int) -> list[int]:
    steps = -(-count // per_step)
    return [i for step in range(steps) for i in step_indices(examples, per_step, step, seed)][:count]


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), seeds)
def test_each_epoch_is_a_permutation(examples: int, per_step: int, seed: int) -> None:
    order = positions(examples, per_step, 3 * examples, seed)
    for epoch in range(3):
        assert sorted(order[epoch * examples : (epoch + 1) * examples]) == list(range(examples))


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), st.integers(1, 60), seeds)
def test_the_order_does_not_depend_on_the_size_of_a_step(examples: int, one: int, other: int, seed: int) -> None:
    assert positions(examples, one, 3 * examples, seed) == positions(examples, other, 3 * examples, seed)


@settings(max_examples=20)
@given(sizes, st.lists(st.integers(0, 9), max_size=9), seeds)
def test_a_step_is_the_same_whatever_was_asked_before(examples: int, before: list[int], seed: int) -> None:
    expected = step_indices(examples, 4, 7, seed)
    for step in before:
        step_indices(examples, 4, step, seed + 1)
        step_indices(examples, 4, step, seed)
    assert step_indices(examples, 4, 7, seed) == expected


def test_seeds_and_epochs_differ() -> None:
    orders = [tuple(step_indices(100, 100, epoch, seed)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
