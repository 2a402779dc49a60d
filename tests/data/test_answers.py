"""What rewards see of an answer, by real tokenizers and templates: what the prompt began, tags that are special tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from families import FAMILIES, THOUGHTFUL, chatml, of_bytes
from posttrain import Group
from posttrain.data.answers import AnswerText, prompt_text
from posttrain.data.reader import Reader
from posttrain.data.sources import Record
from posttrain.rewards.kinds._form import Tags
from posttrain.rewards.kinds.format import Format
from posttrain.settings.data import Encoding

OPENED = "2 and 2 make 4.\n</think>\n\n<answer>4</answer>"
CASES = [*((name, "<think>\n") for name in THOUGHTFUL), ("own", ""), ("a space everywhere, Zephyr", "")]


def asked(tokenizer: Any, prompt: Any = "2+2=") -> Any:
    ends = [tokenizer.convert_tokens_to_ids("<|im_end|>"), tokenizer.eos_token_id]
    [problem], _ = Reader(Encoding(), tokenizer, ends).problems([Record("x:1", {"prompt": prompt, "answer": "4"})])
    return problem


def judged(tokenizer: Any, text: str) -> tuple[str, float | None]:
    """What rewards see of an answer of these tokens and the end of its turn, and what the format reward gives it."""
    problem, tokens = asked(tokenizer), [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    seen = AnswerText(tokenizer).of(problem.prompt, problem.columns, tokens)
    group = Group(completions=[seen], tokens=[tokens], finished=[True], columns=problem.columns)
    [judgement] = Format(Tags()).judge(group)
    return seen, judgement.score


@pytest.mark.parametrize(("family", "begun"), CASES)
def test_an_answer_begins_with_the_tags_that_its_template_opens(family: str, begun: str) -> None:
    tokenizer = FAMILIES[family]()
    problem, tokens = asked(tokenizer), tokenizer("it is 4", add_special_tokens=False).input_ids
    text = AnswerText(tokenizer)
    assert text.prefill(problem.prompt, problem.columns) == begun
    assert text.of(problem.prompt, problem.columns, [*tokens, tokenizer.eos_token_id]) == f"{begun}it is 4"
    assert text.raw(problem.prompt, problem.columns, [*tokens, tokenizer.eos_token_id]).endswith(tokenizer.eos_token)


@pytest.mark.parametrize("family", THOUGHTFUL)
def test_a_well_formed_answer_to_a_prompt_that_opens_thinking_has_the_form(family: str) -> None:
    tokenizer = FAMILIES[family]()
    assert judged(tokenizer, OPENED) == (f"<think>\n{OPENED}", 1.0)
    assert judged(tokenizer, "4")[1] == judged(tokenizer, f"<think>\n{OPENED}")[1] == 0.0  # opened twice


def test_a_well_formed_answer_where_the_template_opens_nothing_opens_itself() -> None:
    tokenizer = FAMILIES["two end tokens"]()
    assert judged(tokenizer, f"<think>\n{OPENED}")[1] == 1.0 and judged(tokenizer, OPENED)[1] == 0.0


@pytest.mark.system  # its tokenizer takes seconds to load
def test_a_real_template_that_opens_thinking_gives_a_well_formed_answer_the_form(real_model: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model("qwen3.5-think"))
    assert judged(tokenizer, OPENED) == (f"<think>\n{OPENED}", 1.0) and judged(tokenizer, "4")[1] == 0.0


@pytest.mark.system  # its tokenizer takes seconds to load
def test_a_real_template_that_closes_thinking_at_once_shows_it_closed(real_model: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(real_model("qwen3.5-nothink"))
    assert judged(tokenizer, "<answer>4</answer>") == ("<think>\n\n</think>\n\n<answer>4</answer>", 1.0)


def test_tags_that_are_special_tokens_are_kept() -> None:
    tokenizer = of_bytes(chatml(), "[THINK]", "[/THINK]")
    tokens = tokenizer("[THINK]2+2[/THINK]4<|im_end|>", add_special_tokens=False).input_ids
    problem = asked(tokenizer)
    assert AnswerText(tokenizer).of(problem.prompt, problem.columns, tokens) == "[THINK]2+2[/THINK]4"


def test_a_turn_that_is_continued_is_the_beginning_of_the_answer() -> None:
    tokenizer = FAMILIES["two end tokens"]()
    prompt = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is "}]
    problem, tokens = asked(tokenizer, prompt), tokenizer("4", add_special_tokens=False).input_ids
    assert AnswerText(tokenizer).of(problem.prompt, problem.columns, tokens) == "It is 4"
    assert prompt_text(prompt) == "user: q\nassistant: It is " and prompt_text("q") == "q"
