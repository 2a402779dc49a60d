"""Orders by a number or a category: what each pass reads, rows that are alike in random order, and steps of tokens."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.train.collect.order import Mixed, Order, Rule, order_of
from posttrain.train.collect.order.rules import Blocked, Cyclical, Interleaved, Sorted

seeds = st.integers(0, 2**31)
scores = st.lists(st.integers(1, 5), min_size=1, max_size=40)


def by(name: str, keys: list[int]) -> Rule:
    numbers, names = np.array(keys, np.float64), np.unique(keys, return_inverse=True)[1]
    made: dict[str, Callable[[], Rule]] = {
        "ascending": lambda: Sorted(numbers),
        "descending": lambda: Sorted(-numbers),
        "cyclical": lambda: Cyclical.growing(numbers, least=0.25, factor=2.0),
        "blocked": lambda: Blocked(names),
        "blocked within": lambda: Blocked(names, np.arange(len(keys), dtype=np.float64) % 3),
        "interleaved": lambda: Interleaved(names),
        "interleaved within": lambda: Interleaved(names, np.arange(len(keys), dtype=np.float64) % 3),
    }
    return made[name]()


RULES = ["ascending", "descending", "cyclical", "blocked", "blocked within", "interleaved", "interleaved within"]
WHOLE = [name for name in RULES if name != "cyclical"]


def passes(name: str, keys: list[int], seed: int, count: int) -> list[list[int]]:
    """The rows of the first passes."""
    rule = by(name, keys)
    order, ends = (
        order_of(len(keys), 1, seed, rule=rule),
        [0, *accumulate(rule.sizes[n % len(rule.sizes)] for n in range(count))],
    )
    turns = order.turns(0, ends[-1])
    assert [number for _, number in turns] == [n for n in range(count) for _ in range(ends[n], ends[n + 1])]
    return [[row for row, number in turns if number == n] for n in range(count)]


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=25)
@given(keys=scores, seed=seeds)
def test_each_pass_reads_every_row_once(name: str, keys: list[int], seed: int) -> None:
    assert all(sorted(one) == list(range(len(keys))) for one in passes(name, keys, seed, 3))


@settings(max_examples=40)
@given(scores, seeds)
def test_a_curriculum_is_sorted_in_each_pass(keys: list[int], seed: int) -> None:
    for up, down in zip(passes("ascending", keys, seed, 2), passes("descending", keys, seed, 2), strict=True):
        assert [keys[row] for row in up] == sorted(keys) == [keys[row] for row in down][::-1]


@pytest.mark.parametrize("name", WHOLE)
def test_rows_that_are_alike_are_in_random_order_by_the_seed_and_the_pass(name: str) -> None:
    alike = {tuple(one) for seed in (0, 1) for one in passes(name, [3] * 12, seed, 2)}
    assert len(alike) == 4
    firsts = Counter(passes(name, [3] * 4, seed, 1)[0][0] for seed in range(300))
    possible = 2 if "within" in name else 4  # rows 0 and 3 are the first by what orders them
    assert len(firsts) == possible and min(firsts.values()) > 300 / possible / 2


@settings(max_examples=40)
@given(scores, seeds)
def test_blocks_are_one_category_after_another_and_ordered_within(keys: list[int], seed: int) -> None:
    for name in ("blocked", "blocked within"):
        for one in passes(name, keys, seed, 2):
            found = [keys[row] for row in one]
            assert sum(a != b for a, b in pairwise(found)) == len(set(keys)) - 1
            if name == "blocked within":
                for key in set(keys):
                    within = [row % 3 for row in one if keys[row] == key]
                    assert within == sorted(within)


def test_the_order_of_blocks_is_random_whatever_their_sizes() -> None:
    keys = [1] * 9 + [2] * 2 + [3]
    firsts = Counter(keys[passes("blocked", keys, seed, 1)[0][0]] for seed in range(300))
    assert set(firsts) == {1, 2, 3} and min(firsts.values()) > 60


@settings(max_examples=60)
@given(scores, seeds)
def test_interleaved_categories_keep_their_shares_all_along(keys: list[int], seed: int) -> None:
    """Of the first n rows, the last of them at t of the pass, a category of m has t m, give or take one."""
    sizes = Counter(keys)
    for name in ("interleaved", "interleaved within"):
        [one] = passes(name, keys, seed, 1)
        for n in range(len(keys) + 1):
            read = Counter(keys[row] for row in one[:n])
            shares = [(read[key] - 1, read[key] + 1, m) for key, m in sizes.items()]
            assert max(low / m for low, _, m in shares) <= min(high / m for _, high, m in shares)
            if name == "interleaved within":
                assert all(a[1] <= b[1] for key in sizes for a, b in _pairs([(r, r % 3) for r in one if keys[r] == key]))


def _pairs(rows: list[tuple[int, int]]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return list(pairwise(rows))


def test_of_equal_categories_each_has_its_row_in_every_round() -> None:
    [one] = passes("interleaved", [0, 1, 2] * 8, 5, 1)
    assert all({row % 3 for row in one[first : first + 3]} == {0, 1, 2} for first in range(0, 24, 3))


def test_cyclical_passes_grow_and_shrink_as_the_papers_code_has_them() -> None:
    """Of a hundred rows; its sizes begin 0.25, 0.5, 1, 0.5, 0.25, and 0.1, 0.3, 0.9, 1, 1/3, 1/9, 0.1."""
    keys = np.ones(100)
    assert Cyclical.growing(keys, least=0.25, factor=2).sizes == (25, 50, 100, 50)
    assert Cyclical.growing(keys, least=0.1, factor=3).sizes == (10, 30, 90, 100, 33, 11)
    assert Cyclical.growing(keys, least=1, factor=2).sizes == (100,)
    assert Cyclical.growing(keys[:2], least=0.25, factor=2).sizes == (1, 1, 2, 1)
    for one in passes("cyclical", [1, 2, 3, 4, 5] * 4, 0, 8):
        assert len(one) == len(set(one)) and len(one) in (5, 10, 20)


def test_cyclical_passes_draw_rows_by_one_over_their_key() -> None:
    """Of two rows of keys 1 and 3 a pass of one reads the first with chance 3/4."""
    firsts = [passes("cyclical", [1, 3], seed, 1)[0][0] for seed in range(2000)]
    assert firsts.count(0) / 2000 == pytest.approx(0.75, abs=0.04)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=15)
@given(
    keys=scores, one=st.integers(1, 9), other=st.integers(1, 9), before=st.lists(st.integers(0, 9), max_size=4), seed=seeds
)
def test_a_step_is_a_function_of_its_place_alone(
    name: str, keys: list[int], one: int, other: int, before: list[int], seed: int
) -> None:
    ours, theirs = (order_of(len(keys), size, seed, rule=by(name, keys)) for size in (one, other))
    assert [i for s in range(other) for i in ours.turns(s)] == [i for s in range(one) for i in theirs.turns(s)]
    expected = order_of(len(keys), one, seed, rule=by(name, keys)).turns(5)
    for step in before:
        ours.turns(step)
    assert ours.turns(5) == expected == pickle.loads(pickle.dumps(ours)).turns(5)


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=30)
MIXED = Mixed(("a", "b"), (3, 4), ((0, (2, 1)),))


def of_tokens(kind: str, lengths: list[int], tokens: int, seed: int, end: int | None = None) -> Order:
    rule = None if kind == "random" else by(kind, lengths)
    return order_of(len(lengths), tokens, seed, end, rule=rule, lengths=lengths)


@pytest.mark.parametrize("kind", ["random", "ascending", "cyclical"])
@settings(max_examples=40)
@given(lengths=lengths, tokens=st.integers(1, 40), seed=seeds)
def test_a_step_of_tokens_takes_the_next_rows_that_fit_and_no_fewer(
    kind: str, lengths: list[int], tokens: int, seed: int
) -> None:
    order, plain = of_tokens(kind, lengths, tokens, seed), order_of(len(lengths), 1, seed, rule=by_or_none(kind, lengths))
    steps = [order.of(step) for step in range(12)]
    read = [row for step in steps for row in step]
    assert read == plain.of(0, len(read)) and order.sizes(0, 12) == [len(step) for step in steps]
    for step, following in pairwise(steps):
        spent = sum(lengths[row] for row in step)
        assert spent <= tokens or len(step) == 1
        assert spent + lengths[following[0]] > tokens
    assert order.of(3, 4) == [row for step in steps[3:7] for row in step]
    assert of_tokens(kind, lengths, tokens, seed).of(9) == steps[9]  # with nothing asked before
    assert [order.steps(order.read(step)) for step in range(12)] == list(range(12))


def by_or_none(kind: str, lengths: list[int]) -> Rule | None:
    return None if kind == "random" else by(kind, lengths)


@settings(max_examples=40)
@given(lengths, st.integers(1, 40), st.integers(1, 3), seeds)
def test_epochs_in_steps_of_tokens_read_every_row_as_often(lengths: list[int], tokens: int, epochs: int, seed: int) -> None:
    end = epochs * len(lengths)
    order = of_tokens("random", lengths, tokens, seed, end)
    steps = order.steps(end)
    assert Counter(order.of(0, steps)) == dict.fromkeys(range(len(lengths)), epochs)
    assert order.of(steps - 1) and not order.of(steps) and order.read(steps + 5) == end


def test_steps_of_tokens_are_as_by_hand() -> None:
    """Lengths 1 to 6, ascending, at most 6 tokens: 1 2 3, 4, 5, 6; then, over the end of the pass, again."""
    order = of_tokens("ascending", [1, 2, 3, 4, 5, 6], 6, 0)
    assert [order.of(step) for step in range(5)] == [[0, 1, 2], [3], [4], [5], [0, 1, 2]]
    order = of_tokens("descending", [1, 2, 3, 9], 4, 0)
    assert [order.of(step) for step in range(5)] == [[3], [2], [1, 0], [3], [2]]  # 9 alone is too long; 3 + 2 are more than 4
    order = of_tokens("ascending", [1, 1, 1], 7, 0)
    assert [len(order.of(step)) for step in range(3)] == [7, 7, 7]


def test_steps_longer_than_what_is_looked_at_at_once() -> None:
    order = of_tokens("random", [1] * 500 + [2] * 300, 3000, 3)
    for step in range(3):
        rows = order.of(step)
        assert sum(1 + (row >= 500) for row in rows) in (2999, 3000) and len(rows) > 1024


def test_a_mixture_in_steps_of_tokens_has_the_rows_of_one_in_steps_of_rows() -> None:
    rows, tokens = (order_of(7, n, 4, None, MIXED, lengths=lengths) for n, lengths in ((1, None), (9, [1, 2, 3, 4, 5, 6, 7])))
    read = tokens.of(0, 20)
    assert read == rows.of(0, len(read)) and {*tokens.sizes(0, 20)} >= {1, 2, 3}
