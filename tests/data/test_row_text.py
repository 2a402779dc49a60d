"""What a row says is what is trained: names of special tokens, tools and calls, thoughts, weights, parts, cut prompts."""

from __future__ import annotations

from typing import Any

import pytest

from asked import answers, check_asked, masked, talk
from families import FAMILIES, LLAMA, chatml, of_bytes, with_bos_and_eos, with_dummy_space
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.encoding.text import Text
from posttrain.data.reader import Reader
from posttrain.data.rows import BadRow, LongRow
from posttrain.data.sources import Record
from posttrain.settings.data import Encoding
from posttrain.telling import hearing

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CALLS = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t.function.name }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ '<call>' + c.function.name }}ARGUMENTS{{ '</call>' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def calling(arguments: str = "{{ c.function.arguments | tojson }}") -> Any:
    return of_bytes(CALLS.replace("ARGUMENTS", arguments))


def encoder(tokenizer: Any, **options: Any) -> Encoder:
    return Encoder(tokenizer, Encoding.model_validate(options), [tokenizer.eos_token_id])


def call(arguments: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "add", "arguments": arguments}}


def called(arguments: Any = None) -> list[dict[str, Any]]:
    calls = [call({"a": 1} if arguments is None else arguments)]
    return [
        {"role": "user", "content": "1+1?"},
        {"role": "assistant", "content": "I will look.", "tool_calls": calls},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "2."},
    ]


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("name", ["two end tokens", "a token before and behind", "a space everywhere, Llama", "own"])
def test_the_name_of_a_special_token_in_a_text_is_text_and_is_told(name: str, chat: bool) -> None:
    made = FAMILIES[name]()
    end = made.eos_token
    said = {"prompt": f"is {end} it?", "completion": f"it {end} ends it"}
    encode = encoder(made, chat_template=chat)
    row, notes = encode.demonstration(said)
    clean, _ = encode.demonstration({name: text.replace(end, "x") for name, text in said.items()})
    special = {i for i, token in made.added_tokens_decoder.items() if token.special}
    for shown, without in ((row.prompt, clean.prompt), (row.completion, clean.completion)):
        assert [i for i in shown if i in special] == [i for i in without if i in special], (
            "no token more than without the name"
        )
    assert end in made.decode([i for i in row.completion if i not in special])
    assert [counter for counter, _ in notes] == ["special_tokens_as_text"]
    assert row.prompt.tolist() == encode.prompt(said)[0]
    tokens, notes = encoder(made, chat_template=chat, special_tokens="tokens").demonstration(said)
    assert made.eos_token_id in tokens.completion[:-1] and not notes
    reader = Reader(Encoding(chat_template=chat), made, [made.eos_token_id])
    with hearing() as heard:
        reader.examples([Record("x:1", said), Record("x:2", said)])
    assert any(one.rule == "special-tokens-as-text" and "2 rows" in one.sentence for one in heard)


SAID = ("", "a", "is it?", " it  is ", "<|im_end|>it<|end|>", "[INST] is it [/INST]", "</s><s>is", "\n\tI")


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_that_the_tokenizer_gives(name: str) -> None:
    made = FAMILIES[name]()
    text = Text(made, [made.eos_token_id])
    text.known = lambda ids: ids
    for said in SAID:
        assert text.ids(said) == made(said, add_special_tokens=False).input_ids


@pytest.mark.parametrize("options", [{"truncation": True, "max_length": 2}, {"padding": "max_length", "max_length": 9}])
def test_how_others_have_used_the_tokenizer_changes_no_ids(options: dict[str, Any]) -> None:
    made = of_bytes(chatml())
    text = Text(made, [made.eos_token_id])
    before = text.ids("is it?")
    made("is it?", **options)
    assert text.ids("is it?") == before and len(before) == len("is it?")


def test_a_tokenizer_that_does_more_than_hand_a_text_on_is_asked_itself() -> None:
    made = of_bytes(chatml())

    class Twice(type(made)):
        def _encode_plus(self, text: Any, **options: Any) -> Any:
            return super()._encode_plus(text + text, **options)

    once = Text(made, [made.eos_token_id]).ids("is it?")
    made.__class__ = Twice
    assert Text(made, [made.eos_token_id]).ids("is it?") == once + once
    made = of_bytes(chatml())
    made.split_special_tokens = True
    assert Text(made, [made.eos_token_id]).ids("<|im_end|>") == made("<|im_end|>", add_special_tokens=False).input_ids
    assert len(Text(made, [made.eos_token_id]).ids("<|im_end|>")) == len("<|im_end|>")


def test_tags_that_come_in_pairs_stay_tokens_where_a_tokenizer_has_them() -> None:
    made = of_bytes(chatml(), "<think>", "</think>")
    row, notes = encoder(made).demonstration({"prompt": "a", "completion": "<think>b</think>c"})
    assert row.completion[0] == made.convert_tokens_to_ids("<think>") and not notes


def test_what_a_tokenizer_puts_before_a_text_stays_and_what_it_puts_behind_does_not() -> None:
    made = with_bos_and_eos()
    row, _ = encoder(made, chat_template=False).demonstration({"prompt": "ab", "completion": "c"})
    assert made.convert_ids_to_tokens(row.prompt.tolist()) == ["<s>", "a", "b"]


def test_calls_and_tools_are_trained_and_asked() -> None:
    encode, tokens = encoder(calling()), calling()
    found = check_asked(encode, called(), {"tools": TOOLS})
    assert tokens.decode(found[0]) == 'I will look.<call>add{"a": 1}</call><|im_end|>'
    rows, _ = encode.demonstrations({"messages": called(), "tools": TOOLS})
    assert "system\nadd<|im_end|>" in tokens.decode(rows[0].prompt.tolist())


@pytest.mark.parametrize("arguments", ["{{ c.function.arguments | tojson }}", "{{ '' + c.function.arguments }}"])
@pytest.mark.parametrize("given", [{"a": 1}, '{"a": 1}'])
def test_arguments_are_written_alike_as_an_object_and_as_json_text(arguments: str, given: Any) -> None:
    made = calling(arguments)
    (ids, _) = check_asked(encoder(made), called(given))
    assert made.decode(ids) == 'I will look.<call>add{"a": 1}</call><|im_end|>'


def test_a_call_needs_no_content_and_a_thought_is_trained() -> None:
    made = calling()
    turns = called()
    turns[1] = {"role": "assistant", "content": None, "tool_calls": [call({})], "reasoning_content": "I look."}
    (ids, _) = check_asked(encoder(made), turns)
    assert made.decode(ids) == "<think>I look.</think><call>add{}</call><|im_end|>"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"messages": called()}, "tool_calls, for which the chat template has no place"),
        ({"messages": [*talk("a"), {"role": "assistant", "content": "b", "reasoning_content": "c"}]}, "reasoning_content"),
        ({"messages": talk("a", "b"), "tools": TOOLS}, "tools"),
        ({"prompt": "a", "completion": "b", "tools": TOOLS}, "tools"),
        ({"messages": [*talk("a"), {"role": "assistant", "content": "b", "function_call": {"name": "f"}}]}, "function_call"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}, *talk("a", "b")[1:]]}, "'image'"),
        ({"messages": [*talk("a"), {"role": "assistant", "content": "b", "weight": 0.5}]}, "weight is 0.5"),
        ({"messages": [{"role": "user", "content": "a", "train": True}, *talk("a", "b")[1:]]}, "turn of the user"),
        ({"messages": [*talk("a"), {"role": "assistant", "content": "b", "weight": 0}]}, "no turn of the assistant is to be"),
    ],
)
def test_what_changes_the_meaning_and_cannot_be_honoured_is_refused_by_its_name(columns: Any, reason: str) -> None:
    with pytest.raises(BadRow, match=reason):
        encoder(of_bytes(chatml())).demonstrations(columns)


@pytest.mark.parametrize("field", [{"weight": 0}, {"train": False}])
def test_a_turn_of_no_weight_is_read_and_not_learnt(field: dict[str, Any]) -> None:
    made = of_bytes(chatml())
    messages: list[Any] = talk("a", "bb", "c", "dd")
    messages[1] |= field
    rows, _ = encoder(made).demonstrations({"messages": messages})
    ((context, ids),) = answers(rows)
    assert "bb" in made.decode(context) and made.decode(ids) == "dd<|im_end|>"


def test_parts_of_text_are_text_and_a_developer_is_the_system() -> None:
    made = of_bytes(chatml())
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows, _ = encoder(made).demonstrations(
        {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}, *talk("a", "c")[1:]]}
    )
    assert masked(made, rows)[0].startswith("<|im_start|>system⏎s<|im_end|>⏎<|im_start|>user⏎a⏎b<|im_end|>")


def test_a_field_that_nothing_reads_is_told_once() -> None:
    messages = [{"role": "user", "content": "a", "id": 3}, {"role": "assistant", "content": "b", "id": 4}]
    encode = encoder(of_bytes(chatml()))
    with hearing() as heard:
        for _ in range(3):
            encode.demonstrations({"messages": messages})
    assert [one.rule for one in heard] == ["unread-field"] and "id" in heard[0].sentence


@pytest.mark.parametrize("chat", [True, False])
def test_keep_end_cuts_text_and_keeps_what_stands_around_it(chat: bool) -> None:
    made = with_bos_and_eos() if not chat else of_bytes(chatml())
    options = {"on_long_prompt": "keep_end", "chat_template": chat, "prompt_template": "Q: {prompt} A:"}
    if chat:
        options["system_prompt"] = "Be brief."
    whole = encoder(made, **options).prompt({"prompt": "0123456789" * 9})[0]
    prompt, notes = encoder(made, max_prompt_tokens=len(whole) - 85, **options).prompt({"prompt": "0123456789" * 9})
    assert made.decode(prompt) == made.decode(whole).replace("0123456789" * 9, "56789")
    assert [counter for counter, _ in notes] == ["cut_prompt"]
    assert (
        encoder(made, max_prompt_tokens=len(whole) - 85, **options)
        .demonstration({"prompt": "0123456789" * 9, "completion": "x"})[0]
        .prompt.tolist()
        == prompt
    )
    with pytest.raises(LongRow, match="without any of its text"):
        encoder(made, max_prompt_tokens=6, **options).prompt({"prompt": "0123456789"})


def test_keep_end_cuts_the_oldest_turns_first() -> None:
    made = of_bytes(chatml())
    messages = talk("0123456789", "abcdefghij", "ABCDEFGHIJ", system="Be brief.")
    whole = encoder(made).prompt({"prompt": messages})[0]
    cut, _ = encoder(made, on_long_prompt="keep_end", max_prompt_tokens=len(whole) - 14).prompt({"prompt": messages})
    assert made.decode(cut) == made.decode(whole).replace("0123456789", "").replace("abcdefghij", "efghij")


def test_an_answer_that_has_begun_is_continued() -> None:
    made = of_bytes(chatml())
    columns = {"prompt": talk("2+2?", "It is"), "completion": " 4."}
    rows, _ = encoder(made).demonstrations(columns)
    assert masked(made, rows) == ["<|im_start|>user⏎2+2?<|im_end|>⏎<|im_start|>assistant⏎It is⟦ 4.<|im_end|>⟧"]


def test_a_template_that_drops_the_reasoning_trains_it_all_the_same_where_it_asks_for_it() -> None:
    made = FAMILIES["asks for thoughts, drops them"]()
    (ids,) = check_asked(encoder(made), talk("2+2?", "<think>\nI add.\n</think>\n\nIt is 4."))
    assert made.decode(ids) == "I add.\n</think>\n\nIt is 4.<|im_end|>"


def test_an_answer_that_the_template_changes_is_told() -> None:
    made = of_bytes(chatml("m.content.split('#')[-1]"))
    reader = Reader(Encoding(), made, [made.eos_token_id])
    with hearing() as heard:
        reader.examples([Record("x:1", {"prompt": "a", "completion": "b#c"})])
    assert [one.rule for one in heard] == ["changed-answer"]


def test_an_answer_after_a_dummy_space_is_what_the_whole_text_has() -> None:
    made = with_dummy_space(LLAMA, everywhere=True)
    rows, _ = encoder(made).demonstrations({"messages": talk("is it?", "it is", "it?", "it")})
    ids = [*rows[0].prompt.tolist(), *rows[0].completion.tolist()]
    text = made.apply_chat_template(talk("is it?", "it is", "it?", "it"), tokenize=False)
    assert len(rows) == 1 and ids == made(text, add_special_tokens=False).input_ids


@pytest.mark.parametrize("value", [["a"], {"a": 1}, True])
def test_what_is_neither_text_nor_a_number_is_not_written_into_a_prompt(value: Any) -> None:
    encode = encoder(of_bytes(chatml()), prompt_template="{prompt} {hint}")
    with pytest.raises(BadRow, match="hint"):
        encode.prompt({"prompt": "a", "hint": value})
    assert encode.prompt({"prompt": "a", "hint": 3}) == encode.prompt({"prompt": "a", "hint": "3"})
