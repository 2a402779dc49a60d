"""Tokens of an answer as text, as whoever judges it reads them; and the tags by which models that think mark what they do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Ids = Sequence[int] | NDArray[np.int32]

THINKING = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
    ("<|channel>thought", "<channel|>"),
)
"""Where thinking begins and ends, in the templates of models that think."""
ANSWER = ("<answer>", "</answer>")
TAIL = 64  # tokens of a prompt, among which what its template writes at the answer's beginning is looked for
_PAIRS = (*THINKING, ANSWER)
_OPEN = re.compile("|".join(rf"{re.escape(begin)}\s*(?:{re.escape(end)}\s*)?" for begin, end in _PAIRS))
_PREFILL = re.compile(rf"(?:{_OPEN.pattern})+$")


class AnswerText:
    """Text of answers: from what the prompt writes at their beginning on, without special tokens but for the tags above.

    Args:
        tokenizer: of transformers.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        special = _special(tokenizer)
        self._tags = {i for token, i in special.items() if any(token in tag for pair in _PAIRS for tag in pair)}
        self._dropped = sorted((token for token, i in special.items() if i not in self._tags), key=len, reverse=True)

    def of(self, asked: Ids, columns: Mapping[str, Any], tokens: Ids) -> str:
        """What `tokens` say after the prompt `asked` of a row."""
        return self.prefill(asked, columns) + self._decoded(tokens)

    def raw(self, asked: Ids, columns: Mapping[str, Any], tokens: Ids) -> str:
        """The same with all special tokens, those that end an answer among them."""
        return self.prefill(asked, columns) + self._tokenizer.decode(_ids(tokens), skip_special_tokens=False)

    def prefill(self, asked: Ids, columns: Mapping[str, Any]) -> str:
        """The beginning of the answer that stands in the prompt: tags at its end, or a turn that is to be continued."""
        prompt = columns.get("prompt")
        last = prompt[-1] if is_conversation(prompt) else {}
        if last.get("role") == "assistant":
            return str(last["content"])
        end = self._tokenizer.decode(asked[-TAIL:], skip_special_tokens=False)
        found = _PREFILL.search(end)
        return found[0] if found is not None else ""

    def _decoded(self, tokens: Ids) -> str:
        ids = _ids(tokens)
        if not any((ids == tag).any() for tag in self._tags):
            return self._tokenizer.decode(ids, skip_special_tokens=True)
        text = self._tokenizer.decode(ids, skip_special_tokens=False)
        for token in self._dropped:
            text = text.replace(token, "")
        return text


def _ids(tokens: Ids) -> NDArray[np.int32]:
    """An array, which transformers decodes twice as fast as a list."""
    import numpy as np

    return np.asarray(tokens, np.int32)


def is_conversation(prompt: Any) -> TypeGuard[Sequence[Mapping[str, Any]]]:
    """Whether a prompt is a list of messages."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and all(isinstance(one, Mapping) for one in prompt)


def prompt_text(prompt: Any) -> str:
    """A prompt for people: itself, or of a conversation its turns."""
    if not is_conversation(prompt):
        return str(prompt)
    return "\n".join(f"{message.get('role')}: {message.get('content')}" for message in prompt)


def _special(tokenizer: Any) -> dict[str, int]:
    """Tokens that decoding without special ones drops: those that the tokenizer names, and those that only its file marks."""
    named = zip(getattr(tokenizer, "all_special_tokens", ()), getattr(tokenizer, "all_special_ids", ()), strict=True)
    added = getattr(tokenizer, "added_tokens_decoder", None)
    marked = added.items() if isinstance(added, Mapping) else ()  # mistral-common's has none: it names all
    return {**{str(token): i for token, i in named}, **{token.content: i for i, token in marked if token.special}}
