"""Rows that are a text: windows in which each token carries loss once, and what may stand beside a text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.nn.functional import log_softmax

from data.test_encoder import config, encoder, tokenizer
from posttrain.data.reader import Reader
from posttrain.data.rows import Example, Row
from posttrain.data.sources import Record
from posttrain.data.weights import Worth
from posttrain.errors import DataError
from posttrain.estimator.batch import Batch
from posttrain.model.layout.padded import model_inputs
from posttrain.model.scoring import Scorer
from posttrain.settings.data import Encoding, Window
from posttrain.telling import hearing
from tiny import make_model

TEXT = "the cat sat on the mat and saw a rat"


def examples(*rows: dict[str, Any], sides: tuple[str, ...] = (), worth: Worth = "none", **options: Any) -> list[Example]:
    records = [Record(f"row {i}", row, mapped=dict(row.pop("mapped", {}))) for i, row in enumerate(rows)]
    return Reader(config(**options), tokenizer(), (1,)).examples(records, sides=sides, worth=worth)[0]


@settings(max_examples=60, deadline=None)
@given(text=st.text("abc ", min_size=1, max_size=40).filter(str.strip), length=st.integers(2, 12), data=st.data())
def test_every_token_of_a_text_but_the_first_carries_loss_once_whatever_the_stride(text: str, length: int, data: Any) -> None:
    stride = data.draw(st.one_of(st.none(), st.integers(1, length - 1)))
    rows, _ = encoder(window={"length": length, "stride": stride}).text({"text": text})
    whole = [*tokenizer()(text, add_special_tokens=False).input_ids, 1]
    learnt, begin = Counter[int](), 0
    for row in rows:
        assert row.completion.tolist() == whole[begin : begin + length] and len(row.prompt) == 0 and row.mask.any()
        assert not row.mask[0], "nothing stands before it"
        learnt.update((begin + np.flatnonzero(row.mask)).tolist())
        begin += stride or length - 1
    assert learnt == Counter(range(1, len(whole)))


def test_a_text_that_fits_is_one_row_with_what_the_tokenizer_puts_around_it() -> None:
    with_begin = Reader(config(), tokenizer(bos=True), (1,))
    [one] = with_begin.examples([Record("row", {"text": "ab"})])[0][0].rows
    a, b = tokenizer()("ab", add_special_tokens=False).input_ids
    assert one.completion.tolist() == [3, a, b, 1] and one.mask.tolist() == [False, True, True, True]
    assert [len(row.completion) for row in encoder(limit=8).text({"text": TEXT})[0]] == [8, 8, 8, 8, 8, 2]
    assert len(encoder().text({"text": TEXT})[0]) == 1


@torch.no_grad()
def test_the_loss_of_a_texts_rows_is_that_of_its_windows_by_themselves() -> None:
    model, made = make_model()
    rows, _ = Reader(Encoding(window=Window(length=16, stride=11)), made, (made.eos_token_id,)).examples(
        [Record("row", {"text": TEXT})]
    )
    ids = [*made(TEXT, add_special_tokens=False).input_ids, made.eos_token_id]
    naive, scored = 0.0, 0
    for begin in range(0, len(ids), 11):
        window = torch.tensor(ids[begin : begin + 16])
        first = 1 if begin == 0 else 5
        if len(window) > first:
            logp = log_softmax(model(window[None]).logits[0], -1)[:-1].gather(-1, window[1:, None])[:, 0]
            naive, scored = naive - float(logp[first - 1 :].sum()), scored + len(window) - first
    ours = -sum(scored_by(model, row) for example in rows for row in example.rows)
    assert scored == len(ids) - 1 and ours == pytest.approx(naive, abs=1e-12)


def scored_by(model: Any, row: Row) -> float:
    mask = torch.from_numpy(row.mask)[None]
    inputs = model_inputs([row], Batch(loss_mask=mask), pad_id=0)
    return float((Scorer("whole", 1.0).score(model, inputs, mask).logp * mask).sum())


def test_texts_stand_beside_conversations_and_a_template_is_not_asked_for_them() -> None:
    talk = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    rows = examples({"text": "a"}, talk, {"prompt": "a", "completion": "b"})
    assert [len(one.rows[0].prompt) > 0 for one in rows] == [False, True, True]
    bare = tokenizer()
    bare.chat_template = None
    assert Reader(config(), bare, (1,)).examples([Record("row", {"text": "ab"})])[0]
    with pytest.raises(DataError, match="The tokenizer has no chat template"):
        Reader(config(), bare, (1,)).examples([Record("row", {"prompt": "a", "completion": "b"})])


def test_a_text_beside_what_is_asked_and_answered_is_not_read_unless_it_is_named() -> None:
    both = {"text": "abc", "prompt": "a", "completion": "b"}
    [asked] = examples(dict(both))
    assert len(asked.rows[0].prompt) > 0
    [named] = examples({**both, "mapped": {"text": "content"}})
    assert len(named.rows[0].prompt) == 0 and len(named.rows[0].completion) == 4


def test_names_of_special_tokens_in_a_text_are_text_and_that_is_told() -> None:
    made = make_model()[1]
    end, record = made.eos_token_id, Record("row", {"text": f"a{made.eos_token}b"})
    with hearing() as told:
        [one] = Reader(Encoding(), made, (end,)).examples([record])[0]
    assert one.rows[0].completion.tolist().count(end) == 1 and "special-tokens-as-text" in str(told)
    [one] = Reader(Encoding(special_tokens="tokens"), made, (end,)).examples([record])[0]
    assert one.rows[0].completion.tolist().count(end) == 2


def test_a_weight_is_each_windows_and_an_advantage_is_not_made_of_texts() -> None:
    [first, second] = examples({"text": "abcdef", "weight": 0.5}, worth="weight", window={"length": 4})
    assert [one.rows[0].weight.tolist() for one in (first, second)] == [[0.5] * 4] * 2  # type: ignore[union-attr]
    spans = {"text": "abcdef", "weights": [{"span": [3, 5], "weight": 3}]}
    weights = [one.rows[0].weight.tolist() for one in examples(spans, worth="weight", window={"length": 4})]  # type: ignore[union-attr]
    assert weights == [[1, 1, 1, 3], [3, 3, 1, 1]]
    with pytest.raises(DataError, match="row 0: a text has no prompt whose mean reward its own could be held against"):
        examples({"text": "a", "reward": 1}, {"text": "b", "reward": 0}, worth="advantage")
    [valued] = examples({"text": "a", "reward": 1, "value": 0.25}, worth="advantage")
    assert valued.rows[0].weight is not None and valued.rows[0].weight.tolist() == [0.75, 0.75]


@pytest.mark.parametrize(
    ("row", "options", "says"),
    [
        ({"text": " "}, {}, "text is empty"),
        ({"text": ["a"]}, {}, "text must be text, not list"),
        ({"text": "a", "prompt": "b"}, {}, "it has a text and a prompt: which is learnt"),
        ({"text": "a", "completion": "b"}, {}, "it has a text and a completion: which is learnt"),
        ({"text": "a"}, {"sides": ("chosen", "rejected")}, "texts are for algorithms over demonstrations, such as sft"),
        ({"text": "é"}, {}, "characters that the tokenizer does not know"),
    ],
)
def test_bad_texts(row: dict[str, Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        examples(row, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"window": {"length": 4, "stride": 4}}, "stride: 4 must be less than length"),
        ({"window": {"length": 1}}, "length"),
        ({"window": {"length": 8}, "max_tokens": 4}, "window: length: 8 is over max_tokens: 4"),
    ],
)
def test_bad_windows(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Encoding.model_validate(options)


def test_windows_that_the_model_cannot_read_are_refused() -> None:
    with pytest.raises(DataError, match=r"data.window.length: 9 is over the model's own length, 8"):
        encoder(limit=8, window={"length": 9}).text({"text": "a"})
    with pytest.raises(DataError, match=r"data.window.stride: 8 must be less than a row's length, 8"):
        encoder(limit=8, window={"stride": 8}).text({"text": "a"})
