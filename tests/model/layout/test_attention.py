"""Attention of packed rows against each document's own, in float64, gradients included."""

from __future__ import annotations

import pytest
import torch

from posttrain.model.layout.attention import Answers, Layout, Trunks, packed_attention

LAYOUTS = {
    "one document": Layout((Trunks(1, 7),)),
    "documents": Layout((Trunks(1, 1), Trunks(3, 4), Trunks(1, 9))),
    "one prompt": Layout((Trunks(1, 5),), (Answers(0, (0, 0), 3), Answers(0, (0,), 6))),
    "prompts of one length": Layout((Trunks(2, 4),), (Answers(0, (0, 1, 1), 2), Answers(0, (1,), 5))),
    "all": Layout((Trunks(2, 3), Trunks(3, 6)), (Answers(0, (1, 1), 1), Answers(1, (2, 0, 2), 4))),
}


def documents(layout: Layout) -> list[list[int]]:
    """The positions of the packed row that each document is made of; prompts with answers are documents as well."""
    found, trunks, end = list[list[int]](), list[list[list[int]]](), 0
    for block in layout.blocks:
        standing = [list(range(end + i * block.length, end + (i + 1) * block.length)) for i in range(block.count)]
        end += block.count * block.length
        if isinstance(block, Answers):
            found += [trunks[block.trunks][to] + own for to, own in zip(block.to, standing, strict=True)]
        else:
            trunks.append(standing)
            found += standing
    return found


def naive(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
    """The row of the dense weights of each token, which a mask leaves only its document of."""
    groups, length = query.shape[1] // key.shape[1], query.shape[2]
    seen = torch.zeros(length, length, dtype=torch.bool)
    for document in documents(layout):
        for i, position in enumerate(document):
            seen[position, document[: i + 1]] = True
    weights = (scale * query @ key.repeat_interleave(groups, 1).transpose(2, 3)).masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2)


@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (4, 2)], ids=["one", "many", "grouped"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_each_token_sees_its_own_document_up_to_itself(layout: Layout, heads: tuple[int, int]) -> None:
    length, (h, k) = sum(block.count * block.length for block in layout.blocks), heads
    draw = torch.Generator().manual_seed(0)
    q, k, v = states = [torch.randn(1, n, length, 8, dtype=torch.float64, generator=draw) for n in (h, k, k)]
    for one in states:
        one.requires_grad_()
    ours, theirs = packed_attention(q, k, v, layout, scale=0.3), naive(q, k, v, layout, 0.3)
    assert ours.shape == (1, length, h, 8)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
    upstream = torch.randn(ours.shape, dtype=torch.float64, generator=draw)
    found, expected = (torch.autograd.grad(out, states, upstream) for out in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
