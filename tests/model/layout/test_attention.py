"""Attention of packed rows against the dense weights of each token, in float64, gradients included: block by block, and by
the kernel for stretches of any length, whose formulas stand in for it (`flash.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck

import flash
from posttrain.model.layout.attention import Layout
from posttrain.model.layout.blocks import Blocks
from posttrain.model.layout.flash import TILE
from posttrain.model.layout.varlen import Varlen

Standing = tuple[list[int], list[tuple[int, int]]]
"""The lengths of the trunks; of the answers, the number of the trunk and the length."""
ROWS: dict[str, Standing] = {
    "one document": ([7], []),
    "one token": ([1], []),
    "documents": ([1, 4, 4, 4, 9], []),
    "one prompt": ([5], [(0, 3), (0, 3), (0, 6)]),
    "one answer of one token to a prompt of one": ([1], [(0, 1)]),
    "prompts of one length": ([4, 4], [(0, 2), (1, 2), (1, 2), (1, 5)]),
    "documents and prompts": ([3, 3, 6, 6, 6], [(3, 1), (3, 1), (4, 4), (4, 4), (4, 130)]),
}
KINDS: dict[str, Callable[..., Layout]] = {"blocks": Blocks.of, "varlen": Varlen.of}


def naive(states: list[Tensor], standing: Standing, scale: float) -> Tensor:
    """The row of the dense weights of each token, which a mask leaves only its document of."""
    (query, key, value), (trunks, answers) = states, standing
    ends = list(accumulate([0, *trunks, *(length for _, length in answers)]))
    own = [list(range(*bounds)) for bounds in pairwise(ends)]
    seen = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for number, positions in enumerate(own):
        before = own[answers[number - len(trunks)][0]] if number >= len(trunks) else []
        for i, position in enumerate(positions):
            seen[position, before + positions[: i + 1]] = True
    groups = query.shape[1] // key.shape[1]
    weights = (scale * query @ key.repeat_interleave(groups, 1).transpose(2, 3)).masked_fill(~seen, -torch.inf).softmax(-1)
    return (weights @ value.repeat_interleave(groups, 1)).transpose(1, 2)


def drawn(standing: Standing, heads: tuple[int, int], *, size: int = 8) -> tuple[list[Tensor], Tensor]:
    """Queries, keys and values that take gradients, and the gradient of what is made of them."""
    length, (h, k) = sum(standing[0]) + sum(n for _, n in standing[1]), heads
    draw = torch.Generator().manual_seed(length)
    *states, upstream = (torch.randn(1, length, n, size, dtype=torch.float64, generator=draw) for n in (h, k, k, h))
    return [one.transpose(1, 2).requires_grad_() for one in states], upstream


def assert_equal(kind: str, standing: Standing, heads: tuple[int, int]) -> None:
    states, upstream = drawn(standing, heads)
    with flash.kernels():
        ours, theirs = KINDS[kind](*standing).attend(*states, scale=0.3), naive(states, standing, 0.3)
        assert ours.shape == upstream.shape
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)
        found, expected = (torch.autograd.grad(out, states, upstream) for out in (ours, theirs))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("heads", [(1, 1), (4, 4), (4, 2)], ids=["one", "many", "grouped"])
@pytest.mark.parametrize("standing", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_token_sees_its_own_document_up_to_itself(kind: str, standing: Standing, heads: tuple[int, int]) -> None:
    assert_equal(kind, standing, heads)


QUESTIONS = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), max_size=4)), min_size=1, max_size=5)


@settings(max_examples=40)
@given(QUESTIONS, st.sampled_from([(1, 1), (2, 2), (4, 2), (3, 1)]))
def test_it_does_so_in_any_row(questions: list[tuple[int, list[int]]], heads: tuple[int, int]) -> None:
    ordered = sorted(questions, key=lambda question: len(question[1]) > 0)
    answers = [(number, length) for number, (_, lengths) in enumerate(ordered) for length in lengths]
    for kind in KINDS:
        assert_equal(kind, ([length for length, _ in ordered], answers), heads)


def test_what_dropout_takes_out_is_taken_out_of_the_gradient() -> None:
    standing = ROWS["prompts of one length"]
    states, _ = drawn(standing, (2, 1), size=2)
    layout = Varlen.of(*standing)
    with flash.kernels():
        assert (layout.attend(*states, dropout=0.3) - layout.attend(*states)).abs().max() > 0.1
        assert gradcheck(lambda *given: layout.attend(*given, dropout=0.3), states)


def test_nothing_is_copied_for_the_backward_pass() -> None:
    """It keeps queries, keys, values, the output and the log-sums, whatever shares a prompt."""
    standing, heads, size = ([50], [(0, 3)] * 8), (4, 2), 8
    states, _ = drawn(standing, heads, size=size)
    kept: dict[int, int] = {}

    def keep(one: Tensor) -> Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with flash.kernels(), torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        Varlen.of(*standing).attend(*states)
    tokens, noise = 50 + 8 * 3, 2 * 2 * 8
    assert sum(kept.values()) == 8 * tokens * (size * (2 * heads[0] + 2 * heads[1]) + heads[0]) + noise


def test_the_longest_stretches_are_told_in_whole_tiles() -> None:
    layout = Varlen.of([3, 129], [(1, 1), (1, 1)])
    assert layout.shared is not None
    assert (layout.own.most_queries, layout.own.most_keys) == (2 * TILE, 2 * TILE)
    assert (layout.shared.most_queries, layout.shared.most_keys) == (TILE, 2 * TILE)


@pytest.mark.parametrize("answers", [[(0, 2)], [(1, 2), (0, 1)], [(0, 1), (1, 2), (0, 1)]])
def test_answers_that_do_not_stand_after_their_prompts_in_order_are_refused(answers: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="answers to trunks"):
        Varlen.of([3, 4], answers)


KERNELS = {
    "_flash_attention_forward": "(Tensor query, Tensor key, Tensor value, Tensor? cum_seq_q, Tensor? cum_seq_k, "
    "SymInt max_q, SymInt max_k, float dropout_p, bool is_causal, bool return_debug_mask, *, float? scale=None, ",
    "_flash_attention_backward": "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor out, Tensor logsumexp, "
    "Tensor cum_seq_q, Tensor cum_seq_k, SymInt max_q, SymInt max_k, float dropout_p, bool is_causal, Tensor rng_state, "
    "Tensor unused, *, float? scale=None, ",
}
RETURNED = {
    "_flash_attention_forward": ["output", "softmax_logsumexp", "rng_state", "unused", "debug_attn_mask"],
    "_flash_attention_backward": ["", "", ""],
}


@pytest.mark.parametrize("name", KERNELS)
def test_torchs_kernels_are_called_as_they_are_declared(name: str) -> None:
    schema: Any = getattr(torch.ops.aten, name).default._schema
    assert str(schema).startswith(f"aten::{name}{KERNELS[name]}")

    assert [one.name for one in schema.returns] == RETURNED[name]


def test_their_log_sums_are_of_each_head_and_token() -> None:
    """As torch tells its compiler, for rows of stretches."""
    query, key = (torch.empty(10, n, 8, dtype=torch.bfloat16, device="meta") for n in (4, 2))
    starts = torch.empty(3, dtype=torch.int32, device="meta")
    options: Any = (starts, starts, TILE, TILE, 0.0, True, False)
    out, logsum, *_ = torch.ops.aten._flash_attention_forward(query, key, key, *options, scale=0.3)
    assert out.shape == (10, 4, 8) and logsum.shape == (4, 10) and logsum.dtype == torch.float32
