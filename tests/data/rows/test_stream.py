"""A stream gives every row of each pass, by blocks in orders of their own, and goes on from where it was left."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from posttrain.data.rows import DataReport, Example, Row
from posttrain.data.rows.stream import FIRST, Stream
from posttrain.errors import DataError
from posttrain.telling import hearing

ROWS = [[0], [1, 2], [], [3], [4], [5, 6, 7], [8], [9]]
"""What becomes of each record."""


def example(number: int) -> Example:
    ids = np.array([number], np.int32)
    return Example((Row(ids, ids, np.ones(1, np.bool_)),), str(number))


def stream(block: int = 4, rows: list[list[int]] = ROWS, seed: int = 0, passed: list[int] | None = None) -> Stream:
    def read(skip: int, report: DataReport) -> Iterator[list[Example]]:
        if passed is not None:
            passed.append(skip)
        for place, made in enumerate(rows[skip:], skip):
            if not made:
                report.note(f"record {place}", "it is bad", "bad")
            yield [example(number) for number in made]

    return Stream(read, block=block, longest=2, seed=seed, label="data.train")


def taken(one: Stream, number: int) -> list[int]:
    return [int(example.where) for example in one.take(number)]


def test_each_pass_has_every_row_once_by_blocks_that_end_with_a_record() -> None:
    one = stream()
    passes = [taken(one, 10) for _ in range(3)]
    assert all(sorted(each) == [*range(10)] for each in passes) and len({*map(tuple, passes)}) == 3
    assert sorted(passes[0][:4]) == [0, 1, 2, 3] and sorted(passes[0][4:8]) == [4, 5, 6, 7]
    assert taken(stream(block=1), 20) == [*range(10)] * 2
    assert passes[0] == taken(stream(), 10) != taken(stream(seed=1), 10)


@pytest.mark.parametrize("steps", range(16))
def test_it_goes_on_from_its_state_whatever_it_has_done_since(steps: int) -> None:
    whole, passed = stream(), list[int]()
    before = [taken(whole, 3) for _ in range(steps)]
    state = json.loads(json.dumps(whole.state()))
    after = [taken(whole, 3) for _ in range(9)]
    again = stream(passed=passed)
    again.restore(state)
    assert [taken(again, 3) for _ in range(9)] == after and again.counts == whole.counts
    assert all(skip in (0, 4, 6) for skip in passed)  # records before blocks: these are not encoded again
    whole.restore(state)
    assert [taken(whole, 3) for _ in range(9)] == after
    beginning = stream()
    assert [taken(beginning, 3) for _ in range(steps + 9)] == before + after


def test_what_is_left_out_is_counted_and_the_first_of_each_kind_told() -> None:
    with hearing() as heard:
        one = stream()
        one.take(20)
    assert one.counts == {"records": 16, "bad": 2}
    assert [told.rule for told in heard] == ["stream-left-out", "stream-ended"]
    assert "record 2: it is bad" in heard[0].sentence and "8 records" in heard[1].sentence


def test_the_first_rows_are_looked_at_and_given_all_the_same() -> None:
    one = stream(block=7, rows=[[number] for number in range(FIRST + 40)])
    assert [int(each.where) for each in one.first] == [*range(FIRST)]
    assert sorted(taken(one, 7)) == [*range(7)]


def test_an_empty_source_and_one_that_is_another_are_refused() -> None:
    with pytest.raises(DataError, match="no row can be used"):
        stream(rows=[[], []])
    one = stream()
    one.take(9)
    shorter = stream(rows=ROWS[:3])
    with pytest.raises(DataError, match="not what it was"):
        shorter.restore(one.state())


def test_a_block_that_was_broken_off_is_read_again() -> None:
    broken = [False]

    def read(skip: int, report: DataReport) -> Iterator[list[Example]]:
        for number in range(skip, 12):
            if number == 6 and broken[0]:
                broken[0] = False
                raise KeyboardInterrupt
            yield [example(number)]

    one = Stream(read, block=4, longest=2, seed=0, label="data.train")
    first = taken(one, 4)
    broken[0] = True
    state = one.state()
    with pytest.raises(KeyboardInterrupt):
        one.take(1)
    one.restore(state)
    assert sorted(first) == [0, 1, 2, 3] and sorted(taken(one, 4)) == [4, 5, 6, 7]
