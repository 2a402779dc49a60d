"""Rows in packed inputs, and how units are dealt to ranks and micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.model.layout.attention import Answers
from posttrain.model.layout.packed import packed_inputs, packed_micro_batches, packed_tokens


def row(prompt: list[int], completion: list[int], mask: list[bool] | None = None) -> Row:
    carries = [True] * len(completion) if mask is None else mask
    return Row(np.array(prompt, np.int32), np.array(completion, np.int32), np.array(carries, np.bool_))


def batch(rows: list[Row]) -> Batch:
    mask = torch.zeros(len(rows), max(len(one.completion) for one in rows), dtype=torch.bool)
    for i, one in enumerate(rows):
        mask[i, : len(one.mask)] = torch.from_numpy(one.mask)
    return Batch(loss_mask=mask)


def read_back(rows: list[Row], *, share: bool) -> None:
    """Every scored token is predicted from all that comes before it in its row, and from nothing else."""
    inputs, whole = packed_inputs(rows, batch(rows), share=share), batch(rows)
    assert inputs.layout is not None and inputs.position_ids is not None
    ids, at = inputs.input_ids[0].tolist(), inputs.position_ids[0].tolist()
    seen, trunks, end = {}, list[list[list[int]]](), 0
    for block in inputs.layout.blocks:
        standing = [list(range(end + i * block.length, end + (i + 1) * block.length)) for i in range(block.count)]
        end += block.count * block.length
        before: list[list[int]] = [[]] * block.count
        if isinstance(block, Answers):
            before = [trunks[block.trunks][to] for to in block.to]
        else:
            trunks.append(standing)
        for earlier, own in zip(before, standing, strict=True):
            for i, position in enumerate(own):
                seen[position] = [*earlier, *own[: i + 1]]
    assert end == len(ids)
    assert all(at[position] == len(known) - 1 for position, known in seen.items())
    width = whole.loss_mask.shape[1]
    assert sorted(inputs.index.tolist()) == whole.loss_mask.flatten().nonzero()[:, 0].tolist()
    for position, index, target in zip(inputs.position.tolist(), inputs.index.tolist(), inputs.target.tolist(), strict=True):
        one, t = rows[index // width], index % width
        assert target == one.completion[t]
        assert [ids[p] for p in seen[position]] == [*one.prompt.tolist(), *one.completion[:t].tolist()]


ROWS = [
    row([1, 2, 3], [4, 5, 6]),
    row([1, 2, 3], [7]),
    row([1, 2, 3], [8, 9], [False, True]),
    row([1, 2], [3, 4]),
    row([5], [6, 7, 8, 9], [True, False, True, False]),
    row([6, 7, 8], [1, 2, 3]),
    row([6, 7, 8], [2, 2, 2, 2]),
    row([], [4, 5], [False, True]),
    row([9, 9], [4, 5], [False, False]),
]


@pytest.mark.parametrize("share", [True, False])
def test_every_scored_token_is_predicted_from_its_own_row(share: bool) -> None:
    read_back(ROWS, share=share)


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8), st.booleans())
def test_it_is_so_for_any_rows(drawn: list[tuple[list[int], list[int]]], share: bool) -> None:
    read_back([row(prompt, completion) for prompt, completion in drawn], share=share)


def test_a_prompt_stands_once_and_nothing_is_padded() -> None:
    shared = packed_inputs(ROWS[:3], batch(ROWS[:3]), share=True)
    assert shared.input_ids.shape == (1, 3 + 2 + 0 + 1)  # the last token of each row predicts nothing
    apart = packed_inputs(ROWS[:3], batch(ROWS[:3]), share=False)
    assert apart.input_ids.shape == (1, 5 + 3 + 4)


def test_rows_without_loss_are_not_read_and_a_micro_batch_of_none_reads_a_token() -> None:
    read = packed_inputs([ROWS[8], ROWS[3]], batch([ROWS[8], ROWS[3]]), share=True)
    assert read.input_ids.tolist() == [[1, 2, 3]]
    assert packed_inputs([ROWS[8]], batch([ROWS[8]]), share=True).input_ids.shape == (1, 1)


def test_a_first_token_that_nothing_precedes_cannot_carry_loss() -> None:
    rows = [row([], [4, 5])]
    with pytest.raises(ValueError, match="nothing comes before it"):
        packed_inputs(rows, batch(rows), share=True)


UNITS = st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=1, max_size=2), min_size=1, max_size=20)


@given(UNITS, st.integers(1, 3), st.booleans(), st.none() | st.integers(1, 5), st.none() | st.integers(1, 40))
def test_every_unit_is_dealt_once_within_the_bounds(
    drawn: list[list[tuple[int, int]]], ranks: int, share: bool, rows: int | None, tokens: int | None
) -> None:
    units = [[row([prompt] * (prompt + 1), [1] * length) for prompt, length in unit] for unit in drawn]
    options: Any = {"ranks": ranks, "share": share, "rows": rows, "tokens": tokens}
    dealt = packed_micro_batches(units, **options)
    assert packed_micro_batches(units, **options) == dealt
    assert len(dealt) == ranks and len({len(micro) for micro in dealt}) == 1
    assert sorted(unit for rank in dealt for micro in rank for unit in micro) == list(range(len(units)))
    for micro in (micro for rank in dealt for micro in rank if len(micro) > 1):
        assert rows is None or len(micro) <= rows
        assert tokens is None or packed_tokens((one for unit in micro for one in units[unit]), share=share) <= tokens


def test_answers_to_one_prompt_stay_together_and_ranks_have_equal_work() -> None:
    units = [[row([g] * 20, [1] * 5)] for _ in range(4) for g in range(4)]
    dealt = packed_micro_batches(units, ranks=2, share=True, tokens=40)
    assert [len(micro) for rank in dealt for micro in rank] == [4] * 4
    assert all(len({unit % 4 for unit in micro}) == 1 for rank in dealt for micro in rank)
