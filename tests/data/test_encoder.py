"""Golden ids and masks. Every id has a glyph: `_` pad, `$` end, `?` unknown, S U A T the roles, letters themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from posttrain.data.encoding.encoder import Encoder
from posttrain.data.reader import Reader
from posttrain.data.rows import BadRow, LongRow, Row
from posttrain.data.sources import Record
from posttrain.errors import DataError, SetupError
from posttrain.estimator.needs import SIDES
from posttrain.model.load import make_tokenizer
from posttrain.settings.data import DataConfig
from posttrain.settings.model import CharacterTokenizer

ALPHABET = "abcdefghijklmnopqrstuvwxyz :\n"
GLYPHS = "_$?SUAT" + ALPHABET
UNMARKED = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>\n' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# As reasoning models do: what earlier answers held is dropped once a later turn follows.
FORGETS = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}GENERATION"
    "{{ m.content if loop.last else m.content[-1:] }}{{ '<|end|>AFTER' }}ENDGENERATION{% else %}{{ m.content + '<|end|>' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def forgetful(marks: bool, after: str = "") -> str:
    template = FORGETS.replace("ENDGENERATION", "{% endgeneration %}" if marks else "")
    return template.replace("GENERATION", "{% generation %}" if marks else "").replace("AFTER", after)


def tokenizer(template: str | None = None, bos: bool = False) -> Any:
    made = make_tokenizer(CharacterTokenizer(characters=ALPHABET))
    if template is not None:
        made.chat_template = template
    if bos:  # the role of the system is free to stand for it
        made.bos_token = "<|system|>"
        made.backend_tokenizer.post_processor = TemplateProcessing(single="<|system|> $A", special_tokens=[("<|system|>", 3)])
    return made


def config(**options: Any) -> DataConfig:
    return DataConfig.model_validate({"train": {"path": "x.jsonl"}, **options})


def encoder(template: str | None = None, eos: tuple[int, ...] = (1,), limit: int | None = None, **options: Any) -> Encoder:
    return Encoder(tokenizer(template), config(**options), eos, limit)


def reader(**options: Any) -> Reader:
    return Reader(config(**options), tokenizer(), (1,))


def shown(row: Row) -> tuple[str, str, str]:
    """Prompt, completion, and 1 where it carries loss."""
    prompt, completion = ("".join(GLYPHS[i] for i in ids) for ids in (row.prompt, row.completion))
    return prompt, completion, "".join("01"[int(m)] for m in row.mask)


def turns(*contents: str, first: str = "user") -> list[dict[str, str]]:
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


SYSTEM = {"role": "system", "content": "s"}


@pytest.mark.parametrize(
    ("options", "columns", "golden"),
    [
        ({}, {"prompt": "ab", "completion": "c"}, ("Uab$A", "c$", "11")),
        ({}, {"prompt": turns("a"), "completion": turns("c", first="assistant")}, ("Ua$A", "c$", "11")),
        ({}, {"prompt": turns("a", "b", "c"), "completion": "d"}, ("Ua$Ab$Uc$A", "d$", "11")),
        ({}, {"messages": turns("a", "b")}, ("Ua$A", "b$", "11")),
        ({}, {"messages": turns("a", "bb", "c", "d")}, ("Ua$A", "bb$Uc$Ad$", "111000011")),
        ({}, {"messages": turns("a", "b", "c")}, ("Ua$A", "b$", "11")),  # a last question has no answer to learn
        ({}, {"messages": [SYSTEM, *turns("a", "b")]}, ("Ss$Ua$A", "b$", "11")),
        ({"system_prompt": "x"}, {"prompt": "a", "completion": "b"}, ("Sx$Ua$A", "b$", "11")),
        ({"system_prompt": "x"}, {"messages": turns("a", "b")}, ("Sx$Ua$A", "b$", "11")),
        ({"system_prompt": "x"}, {"messages": [SYSTEM, *turns("a", "b")]}, ("Ss$Ua$A", "b$", "11")),
        ({"prompt_template": "{n}: {prompt}"}, {"prompt": "a", "n": "b", "completion": "c"}, ("Ub: a$A", "c$", "11")),
        ({"chat_template": False}, {"prompt": "ab", "completion": "c"}, ("ab", "c$", "11")),
        ({"chat_template": False}, {"prompt": "ab", "completion": "c<|end|>"}, ("ab", "c$", "11")),
        (
            {"chat_template": False, "prompt_template": "q:{prompt}\n"},
            {"prompt": "a", "completion": "b"},
            ("q:a\n", "b$", "11"),
        ),
    ],
)
def test_demonstrations(options: dict[str, Any], columns: dict[str, Any], golden: tuple[str, str, str]) -> None:
    assert shown(encoder(**options).demonstration(columns)[0]) == golden


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": turns("a"), "chosen": turns("b", first="assistant"), "rejected": turns("c", first="assistant")},
        {"chosen": turns("a", "b"), "rejected": turns("a", "c")},
        {"prompt": "a", "chosen": turns("a", "b"), "rejected": turns("a", "c")},  # as UltraFeedback has it
    ],
)
def test_preferences(columns: dict[str, Any]) -> None:
    pair, _ = encoder().preference(columns, SIDES[:2])
    assert list(map(shown, pair)) == [("Ua$A", "b$", "11"), ("Ua$A", "c$", "11")]


def test_the_common_prompt_may_hold_turns() -> None:
    pair, _ = encoder().preference({"chosen": turns("a", "b", "c", "d"), "rejected": turns("a", "b", "c", "e")}, SIDES[:2])
    assert list(map(shown, pair)) == [("Ua$Ab$Uc$A", "d$", "11"), ("Ua$Ab$Uc$A", "e$", "11")]


@pytest.mark.parametrize(
    ("chat", "template", "prompt"),
    [(False, None, "Sab"), (True, "{{ bos_token }}" + UNMARKED, "SUab$\nA"), (True, UNMARKED, "Uab$\nA")],
)
def test_the_beginning_of_sequence_stands_once(chat: bool, template: str | None, prompt: str) -> None:
    made = Encoder(tokenizer(template, bos=True), config(chat_template=chat), [1])
    row, _ = made.demonstration({"prompt": "ab", "completion": "c"})
    assert shown(row) == (prompt, "c$", "11")
    assert list(row.prompt) == made.prompt({"prompt": "ab"})[0]


def test_training_and_sampling_see_the_same_prompt() -> None:
    for made in (encoder(), encoder(UNMARKED), encoder(system_prompt="x"), encoder(chat_template=False)):
        columns = {"prompt": "ab", "completion": "c"}
        assert list(made.demonstration(columns)[0].prompt) == made.prompt(columns)[0]


def test_without_marks_the_answers_are_found_and_nothing_after_their_end_is_learnt() -> None:
    made = encoder(UNMARKED)
    assert shown(made.demonstration({"messages": turns("a", "b", "c", "d")})[0]) == ("Ua$\nA", "b$\nUc$\nAd$", "1100000011")


def test_every_end_token_is_honoured() -> None:
    ends_with_tool = UNMARKED.replace("<|end|>\n", "<|tool|>\n")
    columns = {"messages": turns("a", "b", "c", "d")}
    assert shown(encoder(ends_with_tool, eos=(1, 6)).demonstration(columns)[0]) == ("UaT\nA", "bT\nUcT\nAdT", "1100000011")
    # What the template writes right after an answer ends it, though neither tokenizer nor model call it an end.
    assert shown(encoder(ends_with_tool).demonstration(columns)[0]) == ("UaT\nA", "bT\nUcT\nAdT", "1100000011")


@pytest.mark.parametrize("marks", [True, False])
@pytest.mark.parametrize("after", ["", "\n"])
def test_where_a_template_rewrites_earlier_turns_each_turn_is_a_row_after_its_own_history(marks: bool, after: str) -> None:
    rows, _ = encoder(forgetful(marks, after)).demonstrations({"messages": turns("a", "bb", "c", "dd")})
    assert list(map(shown, rows)) == [("Ua$A", "bb$", "111"), (f"Ua$Ab${after}Uc$A", "dd$", "111")]


def test_no_row_has_characters_that_the_tokenizer_does_not_know() -> None:
    with pytest.raises(BadRow, match="does not know"):
        encoder(forgetful(marks=True)).demonstration({"messages": turns("a", "bb", "É", "dd")})


def test_a_template_that_rewrites_the_prompt_once_an_answer_follows_is_refused() -> None:
    template = forgetful(marks=False).replace("loop.last", "loop.length < 4")
    with pytest.raises(BadRow, match="asks otherwise than it answers"):
        encoder(template).demonstration({"prompt": turns("a", "bb", "c"), "completion": "dd"})


def test_a_pair_whose_answer_is_several_rows_is_refused() -> None:
    pair = {side: turns("a", "bb", "c", f"d{side[0]}") for side in ("chosen", "rejected")}
    split = {side: [*turns(f"{side}", first="assistant"), *turns("e", "ff")] for side in pair}
    made = encoder(forgetful(marks=False))
    assert shown(made.preference(pair, SIDES[:2])[0][0]) == ("Ua$Ab$Uc$A", "dc$", "111")
    with pytest.raises(BadRow, match="no single row"):
        made.preference({"prompt": "a", **split}, SIDES[:2])


@pytest.mark.parametrize(
    ("options", "columns", "golden"),
    [
        ({"max_prompt_tokens": 3}, {"prompt": "ab", "completion": "c"}, "long_prompt"),
        ({"max_tokens": 6}, {"prompt": "ab", "completion": "cd"}, "long_completion"),
        ({"limit": 6}, {"prompt": "ab", "completion": "cd"}, "long_completion"),
        ({"max_tokens": 5}, {"prompt": "ab", "completion": "cd"}, "long_prompt"),
        ({"max_prompt_tokens": 5, "max_tokens": 7}, {"prompt": "ab", "completion": "c"}, ("Uab$A", "c$", "11")),
        (
            {"max_prompt_tokens": 4, "on_long_prompt": "keep_end"},
            {"prompt": "ab", "completion": "c"},
            ("Ub$A", "c$", "11"),
        ),
        ({"max_prompt_tokens": 2, "on_long_prompt": "keep_end"}, {"prompt": "ab", "completion": "c"}, "long_prompt"),
        ({"max_tokens": 6, "on_long_completion": "cut"}, {"prompt": "ab", "completion": "cd"}, ("Uab$A", "c", "1")),
    ],
)
def test_length_limits(options: dict[str, Any], columns: dict[str, Any], golden: Any) -> None:
    made = encoder(**options)
    if isinstance(golden, str):
        with pytest.raises(LongRow) as caught:
            made.demonstration(columns)
        assert caught.value.counter == golden
    else:
        assert shown(made.demonstration(columns)[0]) == golden


@pytest.mark.parametrize(
    ("options", "counter"),
    [
        ({"max_prompt_tokens": 5}, "long_prompt"),
        ({"max_tokens": 9}, "long_completion"),
        ({"max_prompt_tokens": 5, "on_long_prompt": "keep_end"}, None),
        ({"max_tokens": 9, "on_long_completion": "cut"}, None),
        ({"max_prompt_tokens": 5, "on_long_prompt": "raise"}, "x:2"),
        ({"max_tokens": 9, "on_long_completion": "raise"}, "x:2"),
    ],
)
def test_every_long_row_is_counted_or_refused(options: dict[str, Any], counter: str | None) -> None:
    answer = "c" * 9 if "max_tokens" in options else "c"
    records = [
        Record("x:1", {"prompt": "ab", "completion": "c"}),
        Record("x:2", {"prompt": "abcd" if answer == "c" else "ab", "completion": answer}),
    ]
    if counter == "x:2":
        with pytest.raises(DataError, match=r"x:2: .*over the limit of \d+ \(data\.max_\w*tokens"):
            reader(**options).examples(records)
        return
    rows, report = reader(**options).examples(records)
    assert len(rows) == (1 if counter else 2)
    assert sum(report.counters.values()) == 1, "left out or cut: nothing happens silently"
    if counter:
        assert report.metrics("data") == {"data/rows": 1, f"data/{counter}": 1}
        assert report.notes[0][1] == "x:2" and "over the limit" in report.notes[0][2]


def test_an_encoder_needs_an_end_token_and_a_template() -> None:
    bare = tokenizer()
    with pytest.raises(SetupError, match="end-of-sequence"):
        Encoder(bare, config(), [])
    bare.chat_template = None
    without = Encoder(bare, config(), [1])
    for read in (without.prompt, without.demonstrations, lambda row: without.preference(row, SIDES[:2])):
        with pytest.raises(DataError, match=r"chat_template: false"):
            read({"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.text("ab \n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
said = st.text("ab", max_size=4) | st.text(max_size=4) | st.sampled_from(["\ud800", "a\0", "<|end|>", "e\u0301", " "])
spoken = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | st.text(max_size=4), "content": said | anything}
)
contents = said | st.lists(spoken, max_size=4) | anything
records = st.dictionaries(
    st.sampled_from(["prompt", "completion", "messages", "chosen", "rejected", "answer", "n"]), contents, max_size=6
)
ENCODERS = [
    Encoder(make, options, [1])
    for make in (tokenizer(), tokenizer(UNMARKED), tokenizer(forgetful(marks=True)), make_tokenizer("bytes"))
    for options in (
        config(),
        config(chat_template=False),
        config(max_tokens=9, on_long_prompt="keep_end", on_long_completion="cut", prompt_template="{prompt} {n}"),
    )
]


@settings(max_examples=500)
@given(columns=records, which=st.integers(0, len(ENCODERS) - 1))
def test_any_row_is_a_row_or_a_bad_row(columns: dict[str, Any], which: int) -> None:
    made = ENCODERS[which]
    for encode in (lambda: [made.demonstration(columns)[0]], lambda: [*made.preference(columns, SIDES[:2])[0]]):
        try:
            rows = encode()
        except BadRow as bad:
            assert str(bad)
            continue
        for row in rows:
            assert len(row.mask) == len(row.completion) > 0
            assert row.mask.any() and (len(row.prompt) or not row.mask[0])
            assert max([*row.prompt, *row.completion]) < 263 and min([*row.prompt, *row.completion]) >= 0
    try:
        assert made.prompt(columns)[0]
    except BadRow as bad:
        assert str(bad)


@pytest.mark.parametrize("columns", [{"prompt": "\ud800", "completion": "a"}, {"prompt": "a", "completion": "\udfff"}])
def test_half_a_character_is_a_bad_row(columns: dict[str, Any]) -> None:
    """JSON can hold a lone surrogate, which no tokenizer takes."""
    with pytest.raises(BadRow):
        Encoder(make_tokenizer("bytes"), config(), [1]).demonstration(json.loads(json.dumps(columns)))


@pytest.mark.parametrize("template", ["{prompt:d}", "{n:>5}", "{prompt!s:q}"])
def test_a_template_that_a_row_does_not_fit_is_a_bad_row(template: str) -> None:
    with pytest.raises(BadRow):
        encoder(prompt_template=template).demonstration({"prompt": "a", "completion": "b", "n": None})


def test_a_row_whose_only_learnt_token_has_nothing_before_it_is_bad() -> None:
    silent = "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    with pytest.raises(BadRow):
        encoder(silent).demonstration({"messages": turns("", "")})


def test_messages_are_not_rendered_where_the_recipe_wants_plain_text() -> None:
    with pytest.raises(BadRow, match="chat_template"):
        encoder(chat_template=False).demonstration({"messages": turns("a", "b")})


def test_problems_keep_the_columns_that_grade_them() -> None:
    rows = [Record("x:1", {"prompt": "ab", "solution": "c"}), Record("x:2", {"prompt": "ab", "answer": "d", "solution": "c"})]
    asked, report = reader().problems(rows)
    assert [problem.columns["answer"] for problem in asked] == ["c", "d"]
    assert [GLYPHS[i] for i in asked[0].prompt] == list("Uab$A") and report.rows == 2


def test_a_third_completion_is_read_with_the_prompt_of_the_pair() -> None:
    triple = {"prompt": "a", "chosen": "b", "rejected": "c", "reference": "bb"}
    rows, _ = encoder().preference(triple, SIDES)
    assert [shown(row)[1] for row in rows] == ["b$", "c$", "bb$"]
    held = {"chosen": turns("a", "b"), "rejected": turns("a", "c"), "reference": turns("a", "bb")}
    split, _ = encoder().preference(held, SIDES)
    assert [shown(row) for row in split] == [shown(row) for row in rows]
    with pytest.raises(BadRow, match="reference does not begin with the messages that chosen and rejected begin with"):
        encoder().preference({**held, "reference": turns("x", "bb")}, SIDES)
    with pytest.raises(BadRow, match="reference"):
        encoder().preference({name: triple[name] for name in ("prompt", "chosen", "rejected")}, SIDES)


def test_of_completions_that_stand_beside_a_prompt_all_hold_it_or_none() -> None:
    held = {"prompt": turns("a"), "chosen": turns("a", "b"), "rejected": turns("a", "c")}
    reply = [{"role": "assistant", "content": "bb"}]
    with pytest.raises(BadRow, match="chosen and rejected hold it as well, and reference not"):
        encoder().preference({**held, "reference": reply}, SIDES)
    with pytest.raises(BadRow, match="chosen hold it as well, and rejected not"):
        encoder().preference({**held, "rejected": reply}, SIDES[:2])
