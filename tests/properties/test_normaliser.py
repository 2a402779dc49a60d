"""N belongs to the optimizer step: no split of the step, and no row that does not count, changes a gradient."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cases import Case, close, differentiate, on_policy, over, prepared, sample, shapes
from posttrain import Batch


def partition(batch: Batch, parts: int, seed: int) -> list[Tensor]:
    """Rows dealt at random to `parts` micro-batches, preference pairs whole. A part may get none, as a rank may."""
    size = batch.unit
    units = torch.arange(len(batch.loss_mask)).view(-1, size)
    random = torch.Generator().manual_seed(seed)
    units = units[torch.randperm(len(units), generator=random)]
    owner = torch.randint(parts, (len(units),), generator=random)
    return [units[owner == part].flatten() for part in range(parts)]


@over()
@given(shape=shapes, parts=st.integers(1, 5))
def test_any_split_into_micro_batches_gives_the_same_step(case: Case, shape: dict[str, int], parts: int) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    counts = algorithm.counts(batch)
    whole, gradient = differentiate(algorithm, batch, inputs)
    split = partition(batch, parts, shape["seed"])
    halves = [batch.take(rows) for rows in split]
    pieces = [
        differentiate(algorithm, half, {name: value[rows] for name, value in inputs.items()}, counts=counts)
        for half, rows in zip(halves, split, strict=True)
    ]
    back = torch.cat(split).argsort()
    close({name: torch.cat([piece[name] for _, piece in pieces])[back] for name in inputs}, gradient)
    shares = [output.metrics for output, _ in pieces]
    for name, value in whole.metrics.items():
        values = torch.stack([share[name] for share in shares])
        combined = values.amax() if name.endswith("/max") else values.sum()
        torch.testing.assert_close(combined, value, rtol=1e-11, atol=1e-13)
    own = [algorithm.counts(half) for half in halves]
    assert {name: sum(float(count[name]) for count in own) for name in counts} == counts


@over()
@given(shape=shapes)
def test_no_selected_token_is_a_loss_of_zero(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    output, gradient = differentiate(algorithm, batch.replace(loss_mask=torch.zeros_like(batch.loss_mask)), inputs)
    assert output.loss == 0
    assert all((value == 0).all() for value in gradient.values())
    # Such a micro-batch is run by a rank without rows: its shares are added to the others'.
    assert {name: float(value) for name, value in output.metrics.items() if value != 0} == {}


@over(on_policy)
@given(shape=shapes)
def test_an_ungraded_row_never_existed(case: Case, shape: dict[str, int]) -> None:
    drawn = sample(case.algorithm, **shape)
    batch, inputs = drawn.batch, drawn.inputs()
    graded = torch.rand(len(drawn.reward), generator=torch.Generator().manual_seed(shape["seed"])) < 0.7
    graded[0] = True
    faulty = batch.replace(reward=torch.where(graded, drawn.reward, torch.nan), reward_mask=graded)
    rows = graded.nonzero()[:, 0]
    without = case.algorithm.prepare(batch.take(rows))
    faulty = case.algorithm.prepare(faulty)
    assert case.algorithm.counts(faulty) == case.algorithm.counts(without)
    _, expected = differentiate(case.algorithm, without, {name: value[rows] for name, value in inputs.items()})
    _, actual = differentiate(case.algorithm, faulty, inputs)
    close({name: value[rows] for name, value in actual.items()}, expected)
    assert all((value[~graded] == 0).all() for value in actual.values())
