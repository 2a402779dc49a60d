"""A micro-batch's inputs against the model's own full logits; and how units are dealt to ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.data.rows import Example, Row
from posttrain.model.layout.padded import micro_batches, model_inputs
from posttrain.model.load import load
from posttrain.model.scoring import Scorer
from posttrain.settings.model import ModelConfig
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations

VOCABULARY = 32
PAD = 0


@pytest.fixture(scope="module")
def model() -> Any:
    config = {"from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "initializer_range": 0.3}, "dtype": "float64"}
    return load(ModelConfig.model_validate({**config, "tokenizer": {"characters": "abcdefghijklmnopqrst"}}), seed=0)[0].eval()


def row(random: np.random.Generator, prompt: int, completion: int) -> Row:
    mask = random.random(completion) < 0.6
    if not prompt:
        mask[0] = False
    mask[int(random.integers(1, completion))] = True
    ids = random.integers(1, VOCABULARY, prompt + completion).astype(np.int32)
    return Row(ids[:prompt], ids[prompt:], mask)


def collection(seed: int, *, paired: bool = False, progress: float = 0.0) -> Collection:
    random = np.random.default_rng(seed)
    rows = [row(random, *map(int, random.integers((0, 2), (6, 8)))) for _ in range(4)]
    groups = [rows[i : i + 2] for i in (0, 2)] if paired else [[r] for r in rows]
    return collect_demonstrations([Example(tuple(g), "") for g in groups], progress=progress)


def brute_force(model: Any, rows: tuple[Row, ...], mask: torch.Tensor) -> torch.Tensor:
    """One row at a time, unpadded, all logits."""
    logp = torch.zeros(mask.shape, dtype=torch.float64)
    for i, one in enumerate(rows):
        ids = torch.from_numpy(np.concatenate([one.prompt, one.completion]).astype(np.int64))
        logps = model(input_ids=ids[None]).logits[0].log_softmax(-1)
        for t in torch.nonzero(mask[i])[:, 0].tolist():
            at = len(one.prompt) + t
            logp[i, t] = logps[at - 1, ids[at]]
    return logp


def test_a_collection_lays_rows_out_whole() -> None:
    drawn = collection(0, progress=0.25)
    batch = drawn.batch
    assert batch.tokens is not None and batch.chosen is None and batch.progress == 0.25
    for i, one in enumerate(drawn.rows):
        length = len(one.completion)
        assert batch.tokens[i, :length].tolist() == one.completion.tolist()
        assert batch.loss_mask[i].tolist() == [*one.mask.tolist(), *[False] * (batch.loss_mask.shape[1] - length)]
    assert bool((batch.origin == 1).all()) and drawn.units == ((0,), (1,), (2,), (3,))
    assert drawn.steps == ((0, 1, 2, 3),) and len(drawn.where) == 4


def test_pairs_stay_together() -> None:
    drawn = collection(0, paired=True)
    assert drawn.batch.chosen is not None and drawn.batch.chosen.tolist() == [True, False, True, False]
    assert drawn.units == ((0, 1), (2, 3)) and drawn.batch.group is not None
    assert drawn.batch.group.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("seed", range(4))
def test_scores_and_gradients_are_those_of_the_full_logits(model: Any, seed: int) -> None:
    drawn = collection(seed)
    keep = drawn.batch.loss_mask.clone()
    keep[1] = False  # a row that an algorithm dropped after the collection was made
    batch = drawn.batch.replace(loss_mask=keep)
    inputs = model_inputs(drawn.rows, batch, pad_id=PAD)
    weights = torch.randn(batch.loss_mask.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    gradients = []
    for logp in (Scorer().score(model, inputs, batch.loss_mask).logp, brute_force(model, drawn.rows, batch.loss_mask)):
        gradients.append((logp.detach(), *torch.autograd.grad((weights * logp).sum(), list(model.parameters()))))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_temperature_divides_the_logits(model: Any) -> None:
    drawn = collection(5)
    inputs = model_inputs(drawn.rows, drawn.batch, pad_id=PAD)
    with torch.no_grad():
        ours = Scorer(temperature=1.7).score(model, inputs, drawn.batch.loss_mask).logp
        head = model.lm_head.weight.clone()
        model.lm_head.weight.mul_(1 / 1.7)
        theirs = brute_force(model, drawn.rows, drawn.batch.loss_mask)
        model.lm_head.weight.copy_(head)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@settings(max_examples=50)
@given(st.integers(0, 2**31))
def test_each_position_predicts_its_target_and_nothing_is_read_past_the_last(seed: int) -> None:
    drawn = collection(seed)
    inputs = model_inputs(drawn.rows, drawn.batch, pad_id=PAD)
    assert inputs.attention_mask is not None
    width = drawn.batch.loss_mask.shape[1]
    assert sorted(inputs.index.tolist()) == torch.nonzero(drawn.batch.loss_mask.flatten())[:, 0].tolist()
    for i, position, index, target in zip(inputs.row, inputs.position, inputs.index, inputs.target, strict=True):
        one = drawn.rows[int(i)]
        whole = [*one.prompt.tolist(), *one.completion.tolist()]
        assert int(index) // width == int(i) and whole[int(position) + 1] == int(target)
        assert int(position) + 1 == len(one.prompt) + int(index) % width
        assert inputs.input_ids[i, : position + 1].tolist() == whole[: position + 1]
        assert bool(inputs.attention_mask[i, : position + 1].all())
    for i in range(len(drawn.rows)):
        assert int(inputs.attention_mask[i].sum()) == int(inputs.position[inputs.row == i].max()) + 1


def test_the_first_token_of_a_row_without_a_prompt_cannot_be_learnt() -> None:
    ids = np.array([1, 2], np.int32)
    drawn = collect_demonstrations([Example((Row(ids[:0], ids, np.array([True, True])),), "")], progress=0.0)
    with pytest.raises(ValueError, match="nothing comes before it"):
        model_inputs(drawn.rows, drawn.batch, pad_id=PAD)


bounds = st.none() | st.integers(1, 40)


@settings(max_examples=200)
@given(st.lists(st.integers(1, 30), max_size=25), st.integers(1, 4), bounds, bounds)
def test_units_are_dealt_once_within_bounds_and_ranks_take_equally_many_turns(
    lengths: list[int], ranks: int, rows: int | None, tokens: int | None
) -> None:
    dealt = micro_batches(lengths, ranks=ranks, rows=rows, tokens=tokens)
    assert len(dealt) == ranks and len(set(map(len, dealt))) == 1
    parts = [part for rank in dealt for part in rank]
    assert sorted(unit for part in parts for unit in part) == list(range(len(lengths)))
    for part in filter(None, parts):
        assert rows is None or len(part) <= rows
        widest = max(lengths[unit] for unit in part)
        assert tokens is None or len(part) == 1 or len(part) * widest <= tokens
    shares = [sum(map(len, rank)) for rank in dealt]
    assert max(shares) - min(shares) <= 1
    assert micro_batches(lengths, ranks=ranks, rows=rows, tokens=tokens) == dealt
