"""Which rows a step sees: epochs are permutations, a pure function of seed and position."""

from __future__ import annotations

import math
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.train.collect.order import Order, examples_of_epochs

sizes, seeds = st.integers(1, 40), st.integers(0, 2**31)


def positions(examples: int, per_step: int, count: int, seed: int) -> list[int]:
    steps = -(-count // per_step)
    return [i for step in range(steps) for i in Order(examples, per_step, seed).of(step)][:count]


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
    expected = Order(examples, 4, seed).of(7)
    for step in before:
        Order(examples, 4, seed + 1).of(step)
        Order(examples, 4, seed).of(step)
    assert Order(examples, 4, seed).of(7) == expected


def test_seeds_and_epochs_differ() -> None:
    orders = [tuple(Order(100, 100, seed).of(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), st.integers(1, 3), st.decimals(0.1, 3, places=1), seeds)
def test_epochs_read_what_they_say_and_the_last_step_is_smaller(
    examples: int, per_step: int, updates: int, epochs: Decimal, seed: int
) -> None:
    end = examples_of_epochs(float(epochs), examples)
    assert end == math.ceil(epochs * examples)
    cut, steps = Order(examples, per_step, seed, end), -(-end // per_step)
    read = [i for step in range(0, steps, updates) for i in cut.of(step, updates)]
    assert read == positions(examples, per_step, end, seed) and len(read) == end
    assert [len(cut.of(step)) for step in range(steps)] == [per_step] * (steps - 1) + [end - per_step * (steps - 1)]
