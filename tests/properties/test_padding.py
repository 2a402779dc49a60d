"""What stands outside the loss mask is never read, whatever it is: NaN and infinities too."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from cases import Case, differentiate, map_fields, over, sample, shapes
from posttrain import Batch, View

GARBAGE = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -7.0], dtype=torch.float64)


def spoil(values: Tensor, keep: Tensor) -> Tensor:
    return torch.where(keep, values, GARBAGE[torch.arange(values.numel()) % len(GARBAGE)].view(values.shape))


def widen(batch: Batch, columns: int) -> Batch:
    fields = {name: getattr(batch, name) for name in batch.__dataclass_fields__}
    wide = {name: pad(x, (0, columns)) for name, x in fields.items() if isinstance(x, Tensor) and x.dim() == 2}
    return batch.replace(**wide)


def same(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(torch.equal(actual[name], expected[name]) for name in expected)


@over(each="part")
def test_parts_see_zeros_outside_the_selection(case: Case) -> None:
    drawn = sample(case.algorithm)
    batch = map_fields(case.algorithm.prepare(drawn.batch), lambda x: spoil(x, drawn.batch.loss_mask), per_token=True)
    for term in case.algorithm.terms:
        select = term.select(batch)
        view = View.of(batch, spoil(drawn.inputs()["logp"], select), select)
        seen = {field.name: getattr(view, field.name) for field in dataclasses.fields(View)}
        floats = {name: x for name, x in seen.items() if isinstance(x, Tensor) and x.is_floating_point()}
        of_tokens = {name: x for name, x in floats.items() if x.shape == select.shape}
        assert {name for name, x in of_tokens.items() if x[~select].any()} == set()


@over(each="part")
@given(shape=shapes, columns=st.integers(0, 4))
def test_padding_and_masked_values_change_nothing(case: Case, shape: dict[str, int], columns: int) -> None:
    algorithm, drawn = case.algorithm, sample(case.algorithm, **shape)
    plain, gradient = differentiate(algorithm, algorithm.prepare(drawn.batch), drawn.inputs())
    wide = widen(drawn.batch, columns)

    def spoiled(batch: Batch) -> Batch:
        return map_fields(batch, lambda values: spoil(values, batch.loss_mask), per_token=True)

    inputs = {name: spoil(pad(value, (0, columns)), wide.loss_mask) for name, value in drawn.inputs().items()}
    # Twice: `prepare` reads the log-probs, and writes the advantages.
    output, wide_gradient = differentiate(algorithm, spoiled(algorithm.prepare(spoiled(wide))), inputs)
    width = shape["width"]
    assert same({name: value[:, :width] for name, value in wide_gradient.items()}, gradient)
    # The order in which a sum runs over the whole batch depends on its width.
    torch.testing.assert_close(output.metrics, plain.metrics, rtol=1e-12, atol=1e-14)
    assert all((value[~wide.loss_mask] == 0).all() for value in wide_gradient.values())
