"""Which rows a step sees: epochs are permutations, a pure function of seed and position; sources take turns by weight."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.train.collect.order import Mixed, examples_of_epochs, order_of
from posttrain.train.collect.order.mixed import Turns

sizes, seeds = st.integers(1, 40), st.integers(0, 2**31)


def positions(examples: int, per_step: int, count: int, seed: int) -> list[int]:
    steps = -(-count // per_step)
    return [i for step in range(steps) for i in order_of(examples, per_step, seed).of(step)][:count]


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
    expected = order_of(examples, 4, seed).of(7)
    for step in before:
        order_of(examples, 4, seed + 1).of(step)
        order_of(examples, 4, seed).of(step)
    assert order_of(examples, 4, seed).of(7) == expected


def test_seeds_and_epochs_differ() -> None:
    orders = [tuple(order_of(100, 100, seed).of(epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), st.integers(1, 3), st.decimals(0.1, 3, places=1), seeds)
def test_epochs_read_what_they_say_and_the_last_step_is_smaller(
    examples: int, per_step: int, updates: int, epochs: Decimal, seed: int
) -> None:
    end = examples_of_epochs(float(epochs), examples)
    assert end == math.ceil(epochs * examples)
    cut, steps = order_of(examples, per_step, seed, end), -(-end // per_step)
    read = [i for step in range(0, steps, updates) for i in cut.of(step, updates)]
    assert read == positions(examples, per_step, end, seed) and len(read) == end
    assert [len(cut.of(step)) for step in range(steps)] == [per_step] * (steps - 1) + [end - per_step * (steps - 1)]


weights = st.lists(st.integers(1, 1000), min_size=1, max_size=8)
weightings = st.integers(1, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 9), min_size=k, max_size=k).filter(any), min_size=1, max_size=3)
)


@settings(max_examples=200)
@given(weights)
def test_no_source_is_ever_further_from_its_share_than_tijdemans_bound(weights: list[int]) -> None:
    turns, total, counts = Turns(weights), sum(weights), [0] * len(weights)
    bound = 1 - Fraction(1, max(2 * len(weights) - 2, 1))
    for n in range(1, 401):
        whose, before = turns.at(n - 1)
        assert before == counts[whose]
        counts[whose] += 1
        assert all(abs(count - Fraction(n * w, total)) <= bound for count, w in zip(counts, weights, strict=True))
        assert turns.counts(n) == counts


def test_three_to_one_takes_turns_as_by_hand() -> None:
    """d = 1/2. Lags before the first four turns: (3/4, 1/4), (1/2, 1/2), (1/4, 3/4), (1, 0); the second is a tie."""
    for weights in ([3, 1], [6, 2]):
        turns = Turns(weights)
        assert [turns.at(n) for n in range(8)] == [(0, 0), (0, 1), (1, 0), (0, 2), (0, 3), (0, 4), (1, 1), (0, 5)]


@settings(max_examples=50)
@given(sizes, st.integers(1, 60), seeds, st.integers(1, 9))
def test_a_mixture_of_one_source_is_the_order_of_that_source(examples: int, per_step: int, seed: int, weight: int) -> None:
    mixed = Mixed(("one",), (examples,), ((4, (weight,)), (99, (1,))))
    for step in range(5):
        expected = order_of(examples, per_step, seed).turns(step)
        assert order_of(examples, per_step, seed, None, mixed).turns(step) == expected


def mixed_of(phases: list[list[int]], sizes: list[int], length: int) -> Mixed:
    ends = tuple((length * (number + 1), tuple(weights)) for number, weights in enumerate(phases))
    return Mixed(tuple(map(str, range(len(sizes)))), tuple(sizes), ends)


@settings(max_examples=60)
@given(weightings, st.lists(st.integers(1, 9), min_size=5, max_size=5), st.integers(1, 30), st.integers(1, 9), seeds)
def test_sources_keep_their_shares_within_each_phase_and_read_their_own_passes(
    phases: list[list[int]], sizes: list[int], length: int, per_step: int, seed: int
) -> None:
    sizes = sizes[: len(phases[0])]
    mixed, rows = mixed_of(phases, sizes, length), sum(sizes)
    order = order_of(rows, per_step, seed, length * len(phases), mixed)
    steps = -(-length * len(phases) // per_step)
    turns = [turn for step in range(steps) for turn in order.turns(step)]
    source = [number for number, size in enumerate(sizes) for _ in range(size)]
    assert len(turns) == length * len(phases)
    for number, weights in enumerate(phases):
        there, total = sum(map(bool, weights)), sum(weights)
        for n in range(length + 1):
            read = [source[example] for example, _ in turns[number * length : number * length + n]]
            for s, weight in enumerate(weights):
                assert abs(read.count(s) - Fraction(n * weight, total)) <= 1 - Fraction(1, max(2 * there - 2, 1))
    for s, size in enumerate(sizes):
        own = [(example, epoch) for example, epoch in turns if source[example] == s]
        assert [epoch for _, epoch in own] == [place // size for place in range(len(own))]
        for first in range(0, len(own) - size + 1, size):
            assert len({example for example, _ in own[first : first + size]}) == size
        assert mixed.counts(len(turns))[s] == len(own)


@settings(max_examples=30)
@given(weightings, st.integers(1, 9), st.integers(1, 9), st.lists(st.integers(0, 9), max_size=5), seeds)
def test_a_step_of_a_mixture_is_a_function_of_its_place_alone(
    phases: list[list[int]], one: int, other: int, before: list[int], seed: int
) -> None:
    sizes = [3, 5, 2, 7, 4][: len(phases[0])]
    mixed, rows = mixed_of(phases, sizes, 11), sum(sizes)
    ours, theirs = (order_of(rows, size, seed, None, mixed) for size in (one, other))
    assert [i for s in range(other) for i in ours.turns(s)] == [i for s in range(one) for i in theirs.turns(s)]
    expected = ours.turns(5)
    for step in before:
        theirs.turns(step)
        ours.turns(step)
    assert ours.turns(5) == expected


def test_the_first_source_reads_what_it_reads_by_itself_and_each_has_an_order_of_its_own() -> None:
    mixed = Mixed(("a", "b"), (20, 20), ((1, (1, 1)),))
    turns = [i for step in range(10) for i in order_of(40, 4, 7, None, mixed).of(step)]
    assert [i for i in turns if i < 20] == [i for step in range(5) for i in order_of(20, 4, 7).of(step)]
    assert [i - 20 for i in turns if i >= 20] != [i for i in turns if i < 20]
