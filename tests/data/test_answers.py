"""What rewards see of an answer: the prompt's prefill, tags that are special tokens, messages as text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from posttrain.data.answers import AnswerText, prompt_text

WORDS = ["<s>", "<|im_end|>", "[THINK]", "[/THINK]", "hello", "42", "Assistant:", "<think>\n", "</think>\n\n"]


class Words:
    """Each id is a word; the first four are special."""

    all_special_tokens = WORDS[:4]
    all_special_ids = (0, 1, 2, 3)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        return "".join(WORDS[i] for i in ids if not (skip_special_tokens and i < 4))


@pytest.mark.parametrize(
    ("asked", "prefill"),
    [([0, 6, 7], "<think>\n"), ([0, 6, 7, 8], "<think>\n</think>\n\n"), ([7, 6], ""), ([6, 2], "[THINK]")],
)
def test_an_answer_begins_with_the_tags_that_its_prompt_ends_with(asked: list[int], prefill: str) -> None:
    text = AnswerText(Words())
    assert (
        text.of(asked, {"prompt": "q"}, [5, 1]) == f"{prefill}42" and text.raw(asked, {}, [5, 1]) == f"{prefill}42<|im_end|>"
    )


def test_tags_that_are_special_tokens_are_kept() -> None:
    assert AnswerText(Words()).of([0], {"prompt": "q"}, [2, 4, 3, 5, 1]) == "[THINK]hello[/THINK]42"


def test_a_turn_that_is_continued_is_the_beginning_of_the_answer() -> None:
    prompt = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is "}]
    assert AnswerText(Words()).of([0, 6], {"prompt": prompt}, [5]) == "It is 42"
    assert prompt_text(prompt) == "user: q\nassistant: It is " and prompt_text("q") == "q"
