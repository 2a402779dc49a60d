"""What demonstrations are worth: numbers of rows, of tokens, of spans of characters, and advantages made of rewards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from families import FAMILIES
from posttrain.data import sources
from posttrain.data.columns import tell_unread
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, digest
from posttrain.data.sources import Record
from posttrain.data.spans import of_tokens
from posttrain.data.weights import Worth
from posttrain.errors import DataError
from posttrain.model.load import CHAT_TEMPLATE, make_tokenizer
from posttrain.settings.data import Encoding, PathSource, TaskSource
from posttrain.telling import hearing

PAIR = {"prompt": "1+1=", "completion": "it is 2"}
TALK = {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]}
END = 1  # the end token of an answer


def reader(tokenizer: Any = None, **data: Any) -> Reader:
    if tokenizer is None:
        tokenizer = make_tokenizer("bytes")
        tokenizer.chat_template = CHAT_TEMPLATE
    return Reader(Encoding.model_validate(data), tokenizer, [tokenizer.eos_token_id])


def read(*rows: Mapping[str, Any], worth: Worth = "weight", **data: Any) -> tuple[list[Any], DataReport]:
    records = [Record(f"row {i}", dict(row)) for i, row in enumerate(rows)]
    return reader(**data).examples(records, worth=worth)


def weights_of(row: Mapping[str, Any], **data: Any) -> list[float]:
    [example], _ = read(row, **data)
    return example.rows[0].weight.tolist()


def test_a_weight_is_every_tokens_and_one_where_a_row_gives_none() -> None:
    kept, report = read(PAIR | {"weight": 0.5}, PAIR, PAIR | {"weight": "2"}, TALK | {"weight": 0}, PAIR | {"weight": None})
    assert [set(example.rows[0].weight.tolist()) for example in kept] == [{0.5}, {1}, {2}, {0}, {1}]
    assert all(len(example.rows[0].weight) == len(example.rows[0].completion) for example in kept)
    assert not report.unread


def test_weights_are_one_for_each_token_with_its_end_or_without_times_the_rows() -> None:
    numbers = [0, 1, 2, 3, 0.5, 0, 1]
    assert weights_of(PAIR | {"weights": numbers}) == [*numbers, END]
    assert weights_of(PAIR | {"weights": [*numbers, 4]}) == [*numbers, 4]
    assert weights_of(PAIR | {"weights": json.dumps(numbers), "weight": 2}) == [2 * one for one in (*numbers, END)]
    cut = weights_of(PAIR | {"weights": [*numbers, 4]}, chat_template=False, max_tokens=9, on_long_completion="cut")
    assert cut == numbers[:5]


@pytest.mark.parametrize("message", [False, True], ids=["text", "message"])
@pytest.mark.parametrize(
    "family",
    ["own", "two end tokens", "tokens that strip", "a token before and behind", "ends turns as text", "strips contents"],
)
def test_spans_are_characters_of_the_completion_whatever_stands_before_it(family: str, message: bool) -> None:
    said, tokenizer = "  é is 42, or 42", FAMILIES[family]()
    spans = [{"span": [14, 16], "weight": 0}, {"span": [2, 3], "weight": 3}]
    columns = {"prompt": "add", "completion": [{"role": "assistant", "content": said}] if message else said}
    record = Record("row 1", {**columns, "weights": spans})
    [example], _ = reader(tokenizer).examples([record], worth="weight")
    row = example.rows[0]
    assert {weight: tokenizer.decode(row.completion[row.weight == weight]) for weight in (3, 0)} == {3: "é", 0: "42"}
    assert tokenizer.decode(row.completion[: int(np.argmax(row.weight == 0))]).endswith("is 42, or ")


def test_a_token_of_two_spans_has_the_weight_of_the_later_one() -> None:
    """Offsets as a tokenizer with longer tokens has them."""
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=_of_words("ab", "c", " ", "</s>"), eos_token="</s>")
    ids = [0, 1, 0, 3]
    spans = [(0, 1, 2.0), (1, 2, 3.0), (4, 5, 0.0)]
    assert of_tokens(tokenizer, ids, [3], "abcab", spans).tolist() == [3, 1, 0, 1]


def _of_words(*words: str) -> Tokenizer:
    core = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(words)}, unk_token=words[-1], continuing_subword_prefix="")
    )
    core.decoder = decoders.Fuse()
    return core


@pytest.mark.parametrize(
    ("columns", "worth", "reason"),
    [
        ({"weight": -1}, "weight", "weight must be a finite number of at least 0, not -1"),
        ({"weight": float("nan")}, "weight", "weight must be a finite number of at least 0, not nan"),
        ({"weight": "heavy"}, "weight", "weight must be a finite number of at least 0, not 'heavy'"),
        ({"weight": True}, "weight", "weight must be a finite number of at least 0, not True"),
        ({"weights": [1, 2]}, "weight", "it has 2 weights for a completion of 8 tokens, or 7 without its end"),
        ({"weights": [1] * 9}, "weight", "it has 9 weights for a completion of 8 tokens"),
        ({"weights": [1] * 6 + [None]}, "weight", "weights must be a finite number of at least 0, not None"),
        ({"weights": [1] * 6 + [float("inf")]}, "weight", "weights must be a finite number of at least 0, not inf"),
        ({"weights": 3}, "weight", "weights must be a list of numbers"),
        ({"weights": []}, "weight", "weights must be a list of numbers"),
        ({"weights": "high"}, "weight", "weights must be a list of numbers"),
        ({"weights": [1, {"span": [0, 1], "weight": 1}]}, "weight", "weights must be numbers, or spans"),
        (
            {"weights": [{"span": [0, 8], "weight": 1}]},
            "weight",
            r"the span \[0, 8\] is not in its completion of 7 characters",
        ),
        ({"weights": [{"span": [3, 3], "weight": 1}]}, "weight", r"the span \[3, 3\] is not in"),
        ({"weights": [{"span": [-1, 3], "weight": 1}]}, "weight", r"the span \[-1, 3\] is not in"),
        ({"weights": [{"span": [0, 3], "weight": -1}]}, "weight", "weights: weight must be a finite number of at least 0"),
        ({"weights": [{"span": [0, 3]}]}, "weight", "weights: a span is"),
        ({"weights": [{"span": [0, 2.5], "weight": 1}]}, "weight", "weights: a span is of whole numbers"),
        ({"weights": [{"from": 0, "to": 3, "weight": 1}]}, "weight", "weights: a span is"),
        ({"weights": [{"span": [0, 3], "weight": 1}, {"span": [2, 5], "weight": 1}]}, "weight", r"\[2, 5\] overlaps"),
        ({"reward": None}, "reward", "reward is missing"),
        ({"reward": float("-inf")}, "reward", "reward must be a finite number, not -inf"),
        ({"reward": 1, "value": "good"}, "advantage", "value must be a finite number, not 'good'"),
    ],
)
def test_what_is_no_weight_is_refused_with_its_row(columns: dict[str, Any], worth: Worth, reason: str) -> None:
    good = {"weight": 1.0, "reward": 1.0, "value": 0.0}
    with pytest.raises(DataError, match=f"^row 1: .*{reason}"):
        read(PAIR | good, PAIR | columns, worth=worth)
    kept, report = read(PAIR | good, PAIR | columns, worth=worth, on_bad_row="skip")
    assert len(kept) == 1 and report.counters["bad"] == 1


@pytest.mark.parametrize(
    ("spans", "key"),
    [
        ([[0, 1]], {0: 7.0}),
        ([[0, 1], [3, 4]], {0: 3.0, 3: 3.0}),
        ([[0, 5]], dict.fromkeys(range(5), 1.0)),  # most tokens are key: all weigh 1, as without weights
    ],
)
def test_key_tokens_weigh_as_many_times_as_much_as_there_are_others(spans: list[list[int]], key: dict[int, float]) -> None:
    """Of 8 tokens, one of them the end."""
    weights = [{"span": span, "weight": "key"} for span in spans]
    assert weights_of(PAIR | {"completion": "it is 3", "weights": weights}) == [key.get(i, 1.0) for i in range(8)]
    assert max(weights_of(PAIR | {"completion": "it is 3" * 20, "weights": weights[:1]})) == 9


def test_weights_of_tokens_are_of_a_completion() -> None:
    with pytest.raises(DataError, match="row 0: its weights are of a completion's tokens, and it has messages"):
        read(TALK | {"weights": [1, 1]})
    with pytest.raises(DataError, match="row 0: weights: spans are of a completion of text, or of one message"):
        read(PAIR | {"completion": [*TALK["messages"][1:], *TALK["messages"]], "weights": [{"span": [0, 1], "weight": 1}]})


def test_a_set_without_the_column_is_refused() -> None:
    with pytest.raises(DataError, match="the data: no row has a weight or weights"):
        read(PAIR, PAIR)
    with pytest.raises(DataError, match=r"the columns .* are needed; .*columns: \{reward: <your column>\}"):
        read(PAIR, worth="reward")
    with pytest.raises(DataError, match=r"the columns .* are needed; .*columns: \{advantage: <your column>\}"):
        read(TALK, worth="advantage")


ANSWERS = [PAIR | {"reward": reward, "completion": str(reward)} for reward in (1, 0, 0.5)]
OTHER = {"prompt": "2+2=", "completion": "4", "reward": 1}


def advantages(*rows: Mapping[str, Any]) -> list[float]:
    return [float(example.rows[0].weight[0]) for example in read(*rows, worth="advantage")[0]]


def test_advantages_are_given_or_rewards_less_a_value_or_less_the_mean_of_the_same_prompt() -> None:
    assert advantages(PAIR | {"advantage": -2, "reward": 9}, TALK | {"advantage": 0.5}) == [-2, 0.5]
    assert advantages(PAIR | {"reward": 1, "value": 0.25}, OTHER | {"value": 2}) == [0.75, -1]
    with hearing() as heard:
        assert advantages(*ANSWERS, OTHER) == [0.5, -0.5, 0, 0]
    assert "1 of 2 prompts stand in one row, whose advantage is 0" in heard[0].sentence


def test_advantages_that_would_all_be_0_or_are_made_in_two_ways_are_refused() -> None:
    with pytest.raises(DataError, match="no prompt stands in two rows"):
        read(ANSWERS[0], OTHER, worth="advantage")
    with pytest.raises(DataError, match="of its rows 1 have reward, 1 have advantage"):
        read(ANSWERS[0], OTHER | {"advantage": 1}, worth="advantage")


def test_weights_that_nothing_reads_are_told() -> None:
    _, report = read(PAIR | {"weight": 0.5}, worth="none")
    with hearing() as heard:
        tell_unread("data.train", [report])
    assert "weight (all rows)" in heard[0].sentence and "worth by weight the algorithm, with its" in heard[0].sentence


def test_other_weights_are_other_data() -> None:
    sets = [read(PAIR | {"weight": 1})[0], read(PAIR | {"weight": 2})[0], read(PAIR | {"weight": 1}, worth="none")[0]]
    assert len(set(map(digest, sets))) == 3


def test_rows_to_be_forgotten_are_named_true_or_false() -> None:
    kept, _ = read(PAIR | {"forget": True}, PAIR | {"forget": "false"}, PAIR | {"forget": 1}, worth="forget")
    assert [float(example.rows[0].weight[0]) for example in kept] == [-1, 1, -1]
    with pytest.raises(DataError, match="row 1: forget must be true or false, not 'maybe'"):
        read(PAIR | {"forget": False}, PAIR | {"forget": "maybe"}, worth="forget")
    with pytest.raises(DataError, match="row 1: forget is missing"):
        read(PAIR | {"forget": False}, PAIR | {"forget": None}, worth="forget")


def test_a_label_is_plus_or_minus_one_of_every_token() -> None:
    rows = [PAIR | {"label": True}, PAIR | {"label": False}, PAIR | {"label": "False"}, TALK | {"label": True}]
    kept, report = read(*rows, worth="label")
    assert [set(example.rows[0].weight.tolist()) for example in kept] == [{1}, {-1}, {-1}, {1}]
    assert not report.unread
    assert digest(kept) != digest(read(*(row | {"label": True} for row in rows), worth="label")[0])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"label": 1}, "label must be true, where the completion is wanted, or false, not 1"),
        ({"label": "good"}, "label must be true, .* not 'good'"),
        ({"label": None}, "label is missing"),
        ({}, "label is missing"),
        ({"chosen": "2", "rejected": "3"}, "label is missing"),
    ],
)
def test_a_row_without_a_label_is_refused(row: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"row 1: {says}"):
        read(PAIR | {"label": True}, PAIR | row, worth="label")


def test_a_set_without_labels_is_told_how_to_name_their_column() -> None:
    with pytest.raises(DataError, match=r"prompt \+ completion \+ label are needed.*\{label: <your column>\}"):
        read(PAIR, worth="label")


def test_a_column_of_another_name_is_a_label(tmp_path: Path) -> None:
    path = tmp_path / "liked.jsonl"
    path.write_text(json.dumps(PAIR | {"liked": True}) + "\n")
    named = sources.read(PathSource.model_validate({"path": str(path), "columns": {"label": "liked"}}))
    assert [record.columns["label"] for record in named] == [True]


@pytest.mark.parametrize("only", [True, False])
def test_labels_of_one_kind_alone_are_told(only: bool) -> None:
    with hearing() as heard:
        read(PAIR | {"label": only}, PAIR | {"label": only}, worth="label")
    assert [f"every row is labelled {str(only).lower()}" in one.sentence for one in heard] == [True]
    with hearing() as heard:
        read(PAIR | {"label": only}, PAIR | {"label": not only}, worth="label")
    assert not heard


def test_rows_of_a_task_with_wrong_demonstrations_say_what_they_are_worth() -> None:
    rows = list(sources.read(TaskSource(task="chain", rows=40, wrong=0.25)))
    wrong = [record.columns["completion"] != record.columns["chosen"] for record in rows]
    assert 0 < sum(wrong) < 20 and [record.columns["forget"] for record in rows] == wrong
    plain = Reader(Encoding(chat_template=False), make_tokenizer("bytes"), [0])
    kept, _ = plain.examples(rows, worth="advantage")
    assert [float(weight[0]) for example in kept if (weight := example.rows[0].weight) is not None] == [
        -0.75 if one else 0.25 for one in wrong
    ]
    assert not {"reward", "value", "forget"} & set(next(sources.read(TaskSource(task="chain", rows=1))).columns)
