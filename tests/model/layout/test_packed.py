"""Rows in packed inputs, and how units are dealt to ranks and micro-batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import flash
from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.estimator.transfer import at_once
from posttrain.model.layout.packed import packed_inputs, packed_micro_batches, packed_tokens
from posttrain.model.layout.padded import model_inputs


def row(prompt: list[int], completion: list[int], mask: list[bool] | None = None) -> Row:
    carries = [True] * len(completion) if mask is None else mask
    return Row(np.array(prompt, np.int32), np.array(completion, np.int32), np.array(carries, np.bool_))


def batch(rows: list[Row]) -> Batch:
    mask = torch.zeros(len(rows), max(len(one.completion) for one in rows), dtype=torch.bool)
    for i, one in enumerate(rows):
        mask[i, : len(one.mask)] = torch.from_numpy(one.mask)
    return Batch(loss_mask=mask)


def read_back(rows: list[Row], *, share: bool, varlen: bool) -> None:
    """Every scored token is predicted from all that comes before it in its row, and from nothing else."""
    inputs, whole = packed_inputs(rows, batch(rows), share=share, varlen=varlen), batch(rows)
    assert inputs.layout is not None and inputs.position_ids is not None
    ids, at = inputs.input_ids[0].tolist(), inputs.position_ids[0].tolist()
    alike, values = torch.zeros(1, 1, len(ids), len(ids)), torch.eye(len(ids))[None, None]
    with flash.kernels():
        shares = inputs.layout.attend(alike, alike, values)[0, :, 0]  # of each token: 1 / n for the n that it sees
    seen = [sorted(share.nonzero()[:, 0].tolist(), key=at.__getitem__) for share in shares]
    assert all([at[known] for known in of] == list(range(at[position] + 1)) for position, of in enumerate(seen))
    width = whole.loss_mask.shape[1]
    assert sorted(inputs.index.tolist()) == whole.loss_mask.flatten().nonzero()[:, 0].tolist()
    for position, index, target in zip(inputs.position.tolist(), inputs.index.tolist(), inputs.target.tolist(), strict=True):
        one, t = rows[index // width], index % width
        assert target == one.completion[t]
        assert [ids[p] for p in seen[position]] == [*one.prompt.tolist(), *one.read[:t].tolist()]


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
    replace(row([6, 7, 8], [1, 2, 3]), inputs=np.array([9, 2, 9], np.int32)),
]


@pytest.mark.parametrize("varlen", [False, True], ids=["blocks", "varlen"])
@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_every_scored_token_is_predicted_from_its_own_row(share: bool, varlen: bool) -> None:
    read_back(ROWS, share=share, varlen=varlen)


TOKENS = st.lists(st.integers(1, 3), min_size=1, max_size=4)


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_it_is_so_for_any_rows(drawn: list[tuple[list[int], list[int]]], share: bool, varlen: bool) -> None:
    read_back([row(prompt, completion) for prompt, completion in drawn], share=share, varlen=varlen)


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


def test_a_micro_batch_goes_to_another_device_in_one_copy() -> None:
    inputs = packed_inputs(ROWS, batch(ROWS), share=True, varlen=True)
    assert inputs.to(torch.device("cpu")) is inputs and inputs.layout is not None
    for to in (model_inputs(ROWS[:4], batch(ROWS[:4]), pad_id=0), inputs, packed_inputs(ROWS, batch(ROWS), share=True)):
        with Copies() as copies:
            moved = to.to(torch.device("meta"))
        assert copies.made == 1 and moved.input_ids.device.type == "meta" and moved.input_ids.shape == to.input_ids.shape
        assert all(one.device.type == "meta" for one in (moved.layout.tensors if moved.layout is not None else ()))


def test_its_numbers_arrive_as_they_are() -> None:
    inputs = packed_inputs(ROWS, batch(ROWS), share=True, varlen=True)
    assert inputs.layout is not None
    sent = [inputs.input_ids, torch.tensor([[True, False, True]]), *inputs.layout.tensors, inputs.position, torch.zeros(0)]
    for one, arrived in zip(sent, at_once(sent, torch.device("cpu")), strict=True):
        assert arrived.dtype == one.dtype and torch.equal(arrived, one)


class Copies(TorchDispatchMode):
    """Counts what goes from one device to another."""

    made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = [one.device for one in args if isinstance(one, torch.Tensor)]
        self.made += any(isinstance(out, torch.Tensor) and out.device != device for device in given)
        return out
