"""The formulas by which a rehearsal computes CUDA's attention, against torch's own on the CPU and its autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from gpu.attention import Kernel, Refused

aten = torch.ops.aten
FORWARD, BACKWARD = aten._flash_attention_forward.default, aten._flash_attention_backward.default
LENGTHS = [3, 1, 6]


def states(*heads: int, tokens: int = sum(LENGTHS)) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(tokens, count, 8).bfloat16() for count in heads]


def offsets(*lengths: int) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """[T, h, d] of one document, in float64."""
    q, k, v = (one.double().transpose(0, 1)[None] for one in (query, key, value))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("window", [(-1, 0), (-1, -1), (1, 0)], ids=["causal", "all", "a window"])
def test_documents_of_several_lengths_are_those_of_each_alone(window: tuple[int, int]) -> None:
    query, key, value = (one.requires_grad_() for one in states(4, 2, 2))
    cu, causal = offsets(*LENGTHS), window == (-1, 0)
    sides: dict[str, Any] = {"window_size_left": window[0], "window_size_right": window[1]}
    given = [cu, cu, max(LENGTHS), max(LENGTHS), 0.0, causal]
    out, lse, *_ = Kernel(FORWARD, [query, key, value, *given, False], sides).result()
    parts: list[Tensor] = []
    for q, k, v in zip(*(one.split(LENGTHS) for one in (query, key, value)), strict=True):
        seen = torch.ones(len(q), len(q), dtype=torch.bool).tril()
        seen = torch.ones_like(seen) if window == (-1, -1) else seen.triu(-window[0]) if window[0] >= 0 else seen
        parts.append(plain(q, k, v, seen))
    expected, slope = torch.cat(parts), torch.randn(len(query), 4, 8).bfloat16()
    assert (out.double() - expected).abs().max() < 0.02 and lse.shape == (4, len(query))
    wanted = torch.autograd.grad(expected, (query, key, value), slope.double())
    made = Kernel(BACKWARD, [slope, query, key, value, out, lse, *given, None, None], sides).result()
    for one, other in zip(made, wanted, strict=True):
        assert one.dtype == torch.bfloat16 and (one.double() - other.double()).abs().max() < 0.05 * other.abs().max()


def test_the_backward_pass_takes_the_log_sum_exp_that_it_is_handed() -> None:
    """Two calls over parts of the keys, merged, have the gradients of one over all: with the merged output and sums."""
    query, key, value = (one.requires_grad_() for one in states(2, 2, 2, tokens=6))
    cut, slope = 2, torch.randn(6, 2, 8).bfloat16()
    cu_q, cus, sizes = offsets(6), [offsets(cut), offsets(6 - cut)], [cut, 6 - cut]
    keys, values = key.split(sizes), value.split(sizes)
    calls = [[cu_q, cu, 6, size, 0.0, False] for cu, size in zip(cus, sizes, strict=True)]
    made = [Kernel(FORWARD, [query, k, v, *c, False], {}).result() for k, v, c in zip(keys, values, calls, strict=True)]
    lse = torch.logaddexp(made[0][1], made[1][1])
    out = sum(one.float() * (sums - lse).exp().T[..., None] for one, sums, *_ in made)
    expected = plain(query, key, value, torch.ones(6, 6, dtype=torch.bool))
    wanted = torch.autograd.grad(expected, (query, key, value), slope.double())
    assert isinstance(out, Tensor) and (out.double() - expected).abs().max() < 0.02
    slopes = [
        Kernel(BACKWARD, [slope, query, k, v, out.bfloat16(), lse, *c, None, None], {}).result()
        for k, v, c in zip(keys, values, calls, strict=True)
    ]
    whole = [
        slopes[0][0].float() + slopes[1][0].float(),
        *(torch.cat([a, b]) for a, b in zip(*(s[1:] for s in slopes), strict=True)),
    ]
    for one, other in zip(whole, wanted, strict=True):
        assert (one.double() - other.double()).abs().max() < 0.05 * other.abs().max()


@pytest.mark.parametrize("grouped", [False, True])
def test_a_batch_with_a_bias_is_torchs_own(grouped: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, count, 5, 8) for count in (2, 1 if grouped else 2, 1 if grouped else 2))
    bias = torch.randn(2, 2, 5, 5)
    func = aten._scaled_dot_product_efficient_attention.default
    if grouped:
        with pytest.raises(Refused, match="no grouped heads"):
            Kernel(func, [query, key, value, bias, True], {})
        return
    out, *_ = Kernel(func, [query, key, value, bias, True], {}).result()
    assert torch.allclose(out, scaled_dot_product_attention(query, key, value, attn_mask=bias), atol=1e-6)


def test_what_a_kernel_does_not_take_is_refused() -> None:
    query, key, value = states(2, 2, 2)
    cu = offsets(*LENGTHS)

    def call(q: Tensor = query, starts: Tensor = cu, longest: int = max(LENGTHS)) -> None:
        Kernel(FORWARD, [q, key.to(q.dtype), value.to(q.dtype), starts, starts, longest, longest, 0.0, True, False], {})

    call()
    wrong: dict[str, Any]
    for wrong, why in (
        ({"q": query.float()}, "16 bits"),
        ({"starts": cu.long()}, "int32"),
        ({"starts": cu[:-1]}, "do not fit"),
        ({"longest": 2}, "do not fit"),
    ):
        with pytest.raises(Refused, match=why):
            call(**wrong)
    with pytest.raises(Refused, match="different dtypes"):
        Kernel(FORWARD, [query, key, value.float(), cu, cu, 6, 6, 0.0, True, False], {})
