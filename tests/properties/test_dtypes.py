"""Log-probs are worked on in float32 at least, and float32 is enough."""

from __future__ import annotations

import torch
from hypothesis import given

from cases import Case, close, differentiate, map_fields, over, prepared, shapes


@over(each="part")
@given(shape=shapes)
def test_float32_is_close_to_float64(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    _, exact = differentiate(algorithm, batch, inputs)
    output, gradient = differentiate(
        algorithm, map_fields(batch, torch.Tensor.float), {name: value.float() for name, value in inputs.items()}
    )
    assert output.loss.dtype == torch.float32
    close({name: value.double() for name, value in gradient.items()}, exact, rtol=1e-4)


@over(each="part")
@given(shape=shapes)
def test_bfloat16_log_probs_are_upcast_before_anything_is_done(case: Case, shape: dict[str, int]) -> None:
    algorithm, batch, inputs = prepared(case, **shape)
    half = {name: value.bfloat16() for name, value in inputs.items()}
    output, gradient = differentiate(algorithm, batch, half)
    upcast, expected = differentiate(algorithm, batch, {name: value.float() for name, value in half.items()})
    assert output.metrics == upcast.metrics
    assert all(value.dtype == torch.float32 for value in output.metrics.values())
    for name, value in gradient.items():
        assert torch.equal(value, expected[name].bfloat16())
