"""Texts in rows that grow: each token is learnt once, at one length, and each length has its share of the tokens."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.data.rows import Example, Row
from posttrain.errors import DataError
from posttrain.execution.prepare.growing import grown, pieces
from posttrain.execution.prepare.preparation import prepare
from posttrain.recipe.recipe import load_recipe
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.collect.order import order_of
from recipes import SCRATCH, Command, only_warnings, recipe, write


def text(first: int, tokens: int, prefix: int = 1, weight: bool = False) -> Example:
    ids = np.arange(first, first + tokens, dtype=np.int32)
    worth = ids.astype(np.float32) if weight else None
    return Example(
        (Row(ids[:0], ids, np.arange(tokens) >= prefix, worth, inputs=ids + 100 if weight else None),), f"text {first}"
    )


@settings(max_examples=60)
@given(st.integers(2, 40), st.integers(1, 5), st.integers(2, 12), st.booleans())
def test_a_text_in_pieces_is_the_text_and_each_token_has_loss_once(
    tokens: int, prefix: int, length: int, weight: bool
) -> None:
    row = text(0, tokens, min(prefix, tokens - 1), weight).rows[0]
    cut = list(pieces(row, length))
    learnt = [token for one in cut for token in one.completion[one.mask].tolist()]
    assert learnt == row.completion[row.mask].tolist()
    assert all(2 <= len(one.completion) <= length and one.mask.any() and not one.mask[0] for one in cut)
    assert all(one.weight is None or one.weight.tolist() == one.completion.tolist() for one in cut)
    assert all(one.inputs is None or (one.inputs - 100).tolist() == one.completion.tolist() for one in cut)
    assert [(one.weight is None, one.inputs is None) for one in cut] == [(not weight, not weight)] * len(cut)
    for before, after in itertools.pairwise(cut):
        assert before.completion[-1] == after.completion[0]


@settings(max_examples=40)
@given(
    st.lists(st.integers(2, 30), min_size=12, max_size=40),
    st.sampled_from([(4, 8, 16), (5, 40), (9,)]),
    st.sampled_from([1, 2, 1.5, 0.5]),
    st.integers(1, 60),
    st.integers(0, 99),
)
def test_lengths_follow_one_another_each_with_its_share_of_the_texts(
    sizes: list[int], lengths: tuple[int, ...], epochs: float, tokens: int, seed: int
) -> None:
    firsts = np.cumsum([0, *sizes[:-1]]).tolist()
    texts = [text(first, size) for first, size in zip(firsts, sizes, strict=True)]
    rows, mixed = grown(texts, lengths, epochs, seed)
    counts, end = Counter(row.source for row in rows), mixed.phases[-1][0]
    assert mixed.names == tuple(map(str, lengths)) and mixed.sizes == tuple(counts[name] for name in mixed.names)
    for name, length in zip(mixed.names, lengths, strict=True):
        own = [row for row in rows if row.source == name]
        assert max(row.tokens for row in own) <= length
        share = sum(size for one, size in zip(texts, sizes, strict=True) if one.where in {row.where for row in own})
        assert abs(share - sum(sizes) / len(lengths)) <= max(sizes)
    learnt = Counter(token for row in rows for token in row.rows[0].completion[row.rows[0].mask].tolist())
    assert set(learnt.values()) == {1} and sum(learnt.values()) == sum(sizes) - len(sizes)
    order = order_of(len(rows), tokens, seed, end, mixed, lengths=[row.tokens for row in rows])
    assert mixed.reads_all(epochs)
    read = [rows[row] for step in range(order.steps(end)) for row in order.of(step)]
    assert [row.source for row in read] == sorted((row.source for row in read), key=mixed.names.index)
    times = Counter(id(row) for row in read)
    assert len(read) == end and set(times.values()) <= {int(epochs), int(np.ceil(epochs))}


def test_fewer_texts_than_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="of 2 texts none is left for rows of"):
        grown([text(0, 9), text(9, 9)], [8, 16, 32], 1, 0)


ORDER = {"by": "length", "rule": "growing", "least": 8}


def values(**changes: Any) -> dict[str, Any]:
    write(Path("texts.jsonl"), *({"text": "".join(str((i * j) % 10) for j in range(20 + i))} for i in range(24)))
    data = {"train": {"path": "texts.jsonl"}, "window": {"length": 32}, "order": ORDER}
    model = {**SCRATCH, "tokenizer": {"characters": "0123456789+="}}
    return {"model": model, "data": data, "training": {"epochs": 1, "tokens_per_step": 64}, **changes}


def test_a_run_reads_longer_and_longer_rows_and_the_plan_says_so(posttrain: Command) -> None:
    made = prepare(load_recipe(recipe(**values())), Permissions())
    steps = [[made.sets.train[row] for row in made.order.of(step)] for step in range(made.steps)]
    read = [row for step in steps for row in step]
    assert [int(row.source) for row in read] == sorted(int(row.source) for row in read) and len(read) == made.read
    assert len({id(row) for row in read}) == len(read) == len(made.sets.train)
    for length in (8, 16, 32):
        assert max(row.tokens for row in read if row.source == str(length)) == length
    assert all(sum(row.tokens for row in step) <= 64 for step in steps)
    said = made.plan()["lengths of rows, one after another"]
    assert [part.split(":")[0] for part in said.split("; ")] == ["8", "16", "32"]
    assert made.plan()["passes over the data"] == 1.0
    code, _, err = posttrain("run", recipe(**values()))
    assert code == 0 and only_warnings(err), err


def test_a_row_with_a_prompt_is_refused() -> None:
    changed = values()
    write(Path("texts.jsonl"), {"prompt": "1+1=", "completion": "2"})
    with pytest.raises(DataError, match=r"texts\.jsonl:1: data\.order: growing cuts texts .* and this row has a prompt"):
        prepare(load_recipe(recipe(**{**changed, "data": {**changed["data"], "chat_template": False}})), Permissions())


@pytest.fixture(autouse=True)
def _in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
