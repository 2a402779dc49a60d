"""Each transform on a few rows: what its paper, or its page here, says of it."""

from __future__ import annotations

import re
from collections import Counter
from random import Random
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch

from data.test_encoder import config as encoding
from data.test_encoder import shown, tokenizer
from data.transforms.test_transforms import made
from posttrain.data.reader import Reader
from posttrain.data.rows import digest
from posttrain.data.sources import Record
from posttrain.data.transforms.documents import at_both_ends
from posttrain.errors import DataError
from posttrain.model.layout.make import make_layout
from posttrain.model.proofs.trials import usable_layout
from posttrain.model.scoring import Scorer
from posttrain.settings.data import Encoding
from posttrain.telling import hearing
from posttrain.train.collect.arrays import from_arrays, to_arrays
from posttrain.train.collect.demonstrations import collect_demonstrations
from tiny import make_model


def records(*rows: dict[str, Any]) -> list[Record]:
    return [Record(f"row {i}", row) for i, row in enumerate(rows)]


def scored(*scores: Any) -> list[Record]:
    return records(*({"prompt": "p", "completion": "c", "score": score} for score in scores))


def prefixes(rows: list[Record], **options: Any) -> list[str]:
    given = {"name": "control_token", "column": "score", "high": "+", "low": "-", "without": 0, **options}
    return [one.columns["prompt"].removesuffix("p") for one in made([given], rows)]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1, 2, 3, 4], "--++"),
        ([0, 0, 0, 1], "---+"),  # the median is the least
        ([0, 1, 1, 1], "-+++"),
        ([0.1, 0.1, 0.1], "+++"),  # constant: the same for all
        (["0", "2", 1.0], "-++"),
    ],
)
def test_high_scores_are_told_from_the_others_by_the_median(scores: list[Any], expected: str) -> None:
    with hearing() as told:
        assert "".join(prefixes(scored(*scores))) == expected
    assert [one.rule for one in told] == ["control-threshold"]


def test_a_threshold_of_the_recipe_is_taken_and_rows_without_a_number_are_bad() -> None:
    assert "".join(prefixes(scored(1, 2, 3), threshold=3)) == "--+"
    found = made([{"name": "control_token", "column": "score", "high": "+", "low": "-"}], scored(1, "much", None, 2))
    assert [one.fault is None for one in found] == [True, False, False, True]
    assert "score must be a finite number, not 'much'" in str(found[1].fault)


def test_a_hundredth_of_the_rows_has_no_prefix_unless_told_otherwise() -> None:
    rows = [Record(f"row {i}", {"prompt": "p", "source": "wiki"}) for i in range(3000)]
    found = Counter(one.columns["prompt"] for one in made([{"name": "control_token", "column": "source"}], rows))
    assert found.keys() == {"<|wiki|>p", "p"} and 10 <= found["p"] <= 55  # 30 expected, 5 standard deviations
    assert {one.columns["prompt"] for one in made([{"name": "control_token", "always": "g"}], rows)} == {"gp"}


def test_the_prefix_of_a_text_carries_no_loss_and_of_messages_stands_in_the_users_first_turn() -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    prefix = {"name": "control_token", "always": "xy "}
    text, asked = made([prefix], records({"text": "abc"}, {"messages": talk}))
    read = Reader(encoding(), tokenizer(), (1,))
    [plain], [with_prefix] = (read.examples([one])[0] for one in (Record("row", {"text": "abc"}), text))
    assert shown(with_prefix.rows[0])[1:] == ("xy " + shown(plain.rows[0])[1], "0001111")
    windows = Reader(encoding(window={"length": 3}), tokenizer(), (1,)).examples([text])[0]
    assert sum(int(one.rows[0].mask.sum()) for one in windows) == 4
    assert [turn["content"] for turn in asked.columns["messages"]] == ["s", "xy a", "b"]
    [neither] = made([prefix], records({"chosen": "a", "rejected": "b"}))
    assert "no prompt, messages or text" in str(neither.fault)


def test_as_text_has_the_tokens_of_the_joined_row() -> None:
    row = {"prompt": "abc ", "completion": "de"}
    plain = Reader(encoding(chat_template=False), tokenizer(bos=True), (1,))
    [joined], [text] = (plain.examples(one)[0] for one in (records(row), made([{"name": "as_text"}], records(row))))
    whole = [*joined.rows[0].prompt.tolist(), *joined.rows[0].completion.tolist()]
    assert text.rows[0].completion.tolist() == whole and int(text.rows[0].mask.sum()) == len(whole) - 1
    [templated] = made([{"name": "as_text", "template": "q {prompt}\na {completion}"}], records({**row, "id": 3}))
    assert templated.columns == {"text": "q abc \na de", "id": 3}


def given_back(prompt: str, completion: str, sentinel: str = "<extra_id_{}>") -> str:
    """The prompt with each span of the completion in its place."""
    number = 0
    while (mark := sentinel.format(number)) in prompt:
        rest = completion.split(mark, 1)[1]
        prompt = prompt.replace(mark, rest.split(sentinel.format(number + 1), 1)[0])
        number += 1
    return prompt


@pytest.mark.parametrize(("span", "rate"), [(3, 0.15), (8, 0.15), (3, 0.5), (8, 0.5), (64, 0.15), (64, 0.5)])
def test_what_is_taken_out_of_a_text_is_its_rate_and_gives_the_text_when_it_is_put_back(span: int, rate: float) -> None:
    rng = Random(0)
    texts = [" ".join("word" * rng.randint(1, 2) for _ in range(rng.randint(100, 200))) + "\n" for _ in range(200)]
    found = made(
        [{"name": "denoise", "denoisers": [{"mode": "[M] ", "span": span, "rate": rate}]}],
        records(*({"text": text} for text in texts)),
    )
    shares, lengths = list[float](), list[float]()
    for text, one in zip(texts, found, strict=True):
        prompt, completion = one.columns["prompt"].removeprefix("[M] "), one.columns["completion"]
        assert given_back(prompt, completion) == text and "text" not in one.columns
        taken = [part.split() for part in re.split(r"<extra_id_\d+>", completion)[1:]]
        shares.append(sum(map(len, taken)) / len(text.split()))
        lengths.append(mean(map(len, taken)))
    assert mean(shares) == pytest.approx(rate, abs=0.02)
    assert mean(lengths) == pytest.approx(min(span, mean(shares) * 150), rel=0.2)


def test_the_seven_of_ul2_are_as_likely_and_the_last_takes_the_end() -> None:
    text = " ".join(f"w{i}" for i in range(300))
    found = made([{"name": "denoise"}], [Record(f"row {i}", {"text": text}) for i in range(700)])
    modes = Counter(one.columns["prompt"][:4] for one in found)
    assert modes.keys() == {"[R] ", "[X] ", "[S] "}
    for mode, share in {"[R] ": 2, "[X] ": 4, "[S] ": 1}.items():
        assert modes[mode] == pytest.approx(100 * share, abs=60)
    for one in (one.columns for one in found if one.columns["prompt"].startswith("[S] ")):
        assert one["prompt"].endswith("<extra_id_0>") and one["completion"].endswith("w299")
    short, marked = made([{"name": "denoise"}], records({"text": "one"}, {"text": "a <extra_id_0> b"}))
    assert "nothing can be taken" in str(short.left_out) and "set another sentinel" in str(marked.left_out)
    [spans] = made([{"name": "denoise", "unit": "characters", "sentinel": "{number}"}], records({"text": "abcdef"}))
    assert given_back(spans.columns["prompt"][4:], spans.columns["completion"], "{}") == "abcdef"


def test_a_source_stands_behind_a_document_and_behind_an_answer_and_is_learnt() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    tag = {"name": "source_tag", "column": "id"}
    rows = records({"text": "ab.\n", "id": "d"}, {"prompt": "a", "completion": "b", "id": 7}, {"messages": talk, "id": "d"})
    text, answer, said = (one.columns for one in made([tag], rows))
    assert (text["text"], answer["completion"], said["messages"][-1]["content"]) == ("ab. || d", "b || 7", "b || d")
    copies = [one.columns["text"] for one in made([{**tag, "copies": 3}], records({"text": "A b. C d! E?", "id": "d"}))]
    assert copies[0] == "A b. C d! E? || d" and copies[1] != copies[0] != copies[2]
    assert all(sorted(re.split(r"(?<=[.!?]) ", one.removesuffix(" || d"))) == ["A b.", "C d!", "E?"] for one in copies)


def test_a_gap_is_filled_by_its_completion() -> None:
    text = "Ann was born in New York, in 1999."
    for one in made([{"name": "cloze", "words": 2, "per_text": 3}], records({"text": text})):
        assert one.columns["prompt"].replace("____", one.columns["completion"]) == text
        assert len(one.columns["completion"].split()) == 2
    facts = records(
        {"text": text, "fact": "New York"}, {"text": text, "fact": "York, in 19"}, {"text": "a ____", "fact": "a"}
    )
    found = made([{"name": "cloze", "answer": "fact", "question": "Fill in: {text}"}], facts)
    assert found[0].columns["prompt"] == "Fill in: Ann was born in ____, in 1999."
    assert found[0].columns["completion"] == "New York"
    assert "does not stand in its text" in str(found[1].left_out) and "set another gap" in str(found[2].left_out)


def test_a_class_is_asked_as_yes_and_no_as_often() -> None:
    questions = {"good": "Is it good?", "bad": "Is it bad?", "odd": "Is it odd?"}
    rows = [Record(f"row {i}", {"prompt": "t", "class": [*questions][i % 3]}) for i in range(30)]
    found = [one.columns for one in made([{"name": "yes_no", "questions": questions}], rows)]
    assert Counter(one["completion"] for one in found) == {"Yes": 30, "No": 30}
    assert found[0] == {"prompt": "t\nIs it good?", "completion": "Yes"}
    assert {one["prompt"] for one in found[1::6]} == {"t\nIs it bad?", "t\nIs it odd?"}
    [wrong] = made([{"name": "yes_no", "questions": questions}], records({"prompt": "t", "class": "new"}))
    assert "its class is 'new', and questions has good, bad, odd" in str(wrong.fault)


def test_of_feedback_the_answer_carries_no_loss() -> None:
    row = {"prompt": "q", "completion": "a", "feedback": "it is"}
    [told] = made([{"name": "feedback"}], records(row))
    [example] = Reader(encoding(chat_template=False), tokenizer(), (1,)).examples([told])[0]
    assert shown(example.rows[0]) == ("q\na\n", "it is$", "111111")


def solved(*prompts: str) -> list[Record]:
    return records(*({"prompt": prompt, "completion": prompt.upper()} for prompt in prompts))


def test_demonstrations_are_the_nearest_rows_the_nearest_last_and_never_the_row_itself() -> None:
    pytest.importorskip("bm25s")
    rows = solved("red apple pie", "red apple", "green apple", "blue sky", "red apple pie")
    given = {"name": "demonstrations", "k": 2, "template": "{prompt}={completion}", "separator": "; "}
    first, second, *_, last = (one.columns["prompt"] for one in made([given], rows))
    assert first == "green apple=GREEN APPLE; red apple=RED APPLE; red apple pie"
    assert second.startswith("green apple=GREEN APPLE; red apple pie=") and second.endswith("; red apple")
    assert last == first, "the same question is no demonstration of itself"
    asked = made([{**given, "sets": ["train"]}], records({"prompt": "a blue pie"}), train=rows)
    assert asked[0].columns["prompt"].endswith("blue sky=BLUE SKY; a blue pie")


def test_too_few_demonstrations_are_refused_and_of_many_some_are_kept_by_chance() -> None:
    pytest.importorskip("bm25s")
    rows = solved(*(f"row number {i}" for i in range(40)))
    with pytest.raises(DataError, match=r"data.transforms.0 \(demonstrations\): k: 40 are to stand before each row"):
        made([{"name": "demonstrations", "k": 40}], rows)
    with hearing() as told:
        found = made([{"name": "demonstrations", "k": 9, "pool": 10}], rows)
    assert ["10 are kept" in one.sentence for one in told] == [True]
    before = {line for one in found for line in one.columns["prompt"].split("\n\n")[:-1]}
    assert len(before) == 10
    assert [one.columns for one in made([{"name": "demonstrations", "k": 9, "pool": 10}], rows[::-1])][::-1] == [
        one.columns for one in found
    ]


def test_the_oracle_stands_in_its_share_of_the_rows_and_never_among_the_distractors() -> None:
    pytest.importorskip("bm25s")
    rows = [
        Record(f"row {i}", {"prompt": f"who is p{i}", "completion": "c", "document": [f"p{i} is one", f"p{i} is more"]})
        for i in range(1500)
    ]
    found = made([{"name": "documents", "k": 4, "oracle": 0.8}], rows)
    shown_of = [one.columns["prompt"].split("\n\n") for one in found]
    assert all(len(parts) == len({*parts}) == 5 and parts[-1] == f"who is p{i}" for i, parts in enumerate(shown_of))
    own = [{f"p{i} is one", f"p{i} is more"} & {*parts} for i, parts in enumerate(shown_of)]
    assert {len(one) for one in own} == {0, 2}
    assert mean(bool(one) for one in own) == pytest.approx(0.8, abs=0.03)


def test_the_best_passages_stand_at_both_ends() -> None:
    assert at_both_ends(list("12345")) == list("13542") and at_both_ends(list("1234")) == list("1342")
    pytest.importorskip("bm25s")
    rows = records(
        {"prompt": "red apple", "completion": "c", "document": "own"},
        *({"prompt": "q", "completion": "c", "document": one} for one in ("red apple pie", "apple", "sky", "sea")),
    )
    given = {"name": "documents", "k": 3, "oracle": 1, "order": "ends", "passage": "{number}:{passage} "}
    assert made([given], rows)[0].columns["prompt"] == "1:own 2:apple 3:red apple pie red apple"
    [alone] = made([{**given, "k": 9}], rows[:1], train=rows)
    assert "k: 9 passages are asked for, 1 of its own stand there, and of others 4" in str(alone.fault)
    assert made([{**given, "k": 1}], rows)[0].columns["prompt"] == "1:own red apple"


def test_of_a_corrupted_text_random_tokens_are_read_and_its_own_are_learnt() -> None:
    text, rate = "abcd " * 200, 0.3
    [record] = made([{"name": "corrupt", "rate": rate}], records({"text": text}))
    whole = Reader(encoding(), tokenizer(bos=True), (1,))
    [changed], [plain] = (whole.examples([one])[0] for one in (record, Record("row 0", {"text": text})))
    [row], [clean] = changed.rows, plain.rows
    assert clean.inputs is None and np.array_equal(row.completion, clean.completion) and np.array_equal(row.mask, clean.mask)
    tokens, differ = tokenizer(bos=True), row.read != row.completion
    assert not differ[0] and not set(row.read[differ].tolist()) & {*tokens.all_special_ids, 1}
    others = 1 - 1 / (len(tokens) - len({*tokens.all_special_ids, 1}))  # a random token may be the one that was there
    assert abs(differ[1:].mean() - rate * others) < 4 * (rate / len(differ)) ** 0.5
    windows = Reader(encoding(window={"length": 16, "stride": 8}), tokens, (1,)).examples([record])[0]
    for number, one in enumerate(windows):
        assert one.rows[0].read.tolist() == row.read[8 * number :][:16].tolist()
    assert digest([changed]) != digest([plain])
    [never] = whole.examples([Record("row 0", {"text": text, "text_corruption": [0.0, 1]})])[0]
    assert np.array_equal(never.rows[0].read, clean.completion)
    with pytest.raises(DataError, match="text_corruption is what the transform corrupt writes"):
        whole.examples([Record("row 0", {"text": text, "text_corruption": "a lot"})])


def test_what_predicts_a_corrupted_texts_tokens_has_read_the_random_ones() -> None:
    """Its log-probs against a loop over its tokens; and a collection of it is the same when it is read again."""
    (model, tokens), (naive, _) = make_model(), make_model()
    [record] = made([{"name": "corrupt", "rate": 0.5}], records({"text": "the cat sat on a mat"}))
    [[example]] = [Reader(Encoding(), tokens, (tokens.eos_token_id,)).examples([record])[0]]
    [row] = example.rows
    collection = from_arrays(to_arrays(collect_demonstrations([example], progress=0.0)))
    assert np.array_equal(collection.rows[0].read, row.read) and not np.array_equal(row.read, row.completion)
    batch = collection.flat.batch([0])
    with torch.no_grad():
        assert usable_layout(model, "packed", len(tokens)) == "packed"
        inputs = make_layout("packed", pad_id=0).inputs(collection.rows, batch)
        found = Scorer("whole", 1.0).score(model, inputs, batch.loss_mask).logp[0]
        for t in range(1, len(row.completion)):
            logits = naive(torch.from_numpy(row.read[:t].astype(np.int64))[None]).logits[0, -1]
            assert float(found[t]) == pytest.approx(float(logits.log_softmax(-1)[int(row.completion[t])]), abs=1e-10)


OFFERED = [{"name": "get_time"}, {"type": "function", "function": {"name": "get_weather"}}, {"name": "get"}, {"name": "sing"}]


@pytest.mark.parametrize(
    ("written_as", "text", "key"),
    [
        ("hermes", '<tool_call>{"name": "get_time", "arguments": {}}</tool_call>', ["[g]et[_][t]ime"]),
        ("hermes", '{"name": "sing"}', ["[s]ing"]),
        ("hermes", '{"name": "get"}', ['[g]et["]']),  # where two others go on
        ("hermes", '{"name": "dance"}', []),
        ("hermes", '<think>{"name": "sing"}</think>{"name": "get"}', ['</think>{"name": "[g]et["]']),
        ("qwen3_xml", "<function=sing></function>", ["=[s]ing>"]),
        ("pythonic", "[sing(a=1), get_time(sing=2)]", ["[s]ing(", "[g]et[_][t]ime(sing"]),
        ("react", "Thought: sing\nAction: sing(1)", ["Action: [s]ing"]),
        ("tagged", "<sing>sing</sing>", ["<[s]ing>sing"]),
    ],
)
def test_key_are_where_a_tools_name_begins_and_where_it_differs_from_anothers(
    written_as: str, text: str, key: list[str]
) -> None:
    row = records({"prompt": "p", "completion": text, "offered": OFFERED})
    [one] = made([{"name": "key_tokens", "format": written_as, "tools": "offered"}], row)
    spans = one.columns.get("weights", [])
    assert all(span["weight"] == "key" and span["span"][1] == span["span"][0] + 1 for span in spans)
    shown_ = "".join(f"[{sign}]" if [i, i + 1] in [span["span"] for span in spans] else sign for i, sign in enumerate(text))
    assert all(part in shown_ for part in key) and shown_.count("[") - text.count("[") == sum(p.count("[") for p in key)
