"""A tokenizer's chat template: rendered, and looked at for how it ends a turn and what it has a place for."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.data.encoding.text import pattern
from posttrain.data.rows import BadRow
from posttrain.settings.data.day import today

Message = dict[str, Any]
_ASKED, _ANSWERED = "Qzaskedzq", "Qzansweredzq"  # what no template looks for
_QUESTION, _ANSWER = {"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}


class Template:
    """The chat template of a tokenizer.

    Args:
        tokenizer: of transformers, with a template.
        options: names that the template reads, beside the messages.
        day: that the template writes, where it writes one; today if None.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None, day: datetime.date | None = None) -> None:
        self._tokenizer, self._options = tokenizer, dict(options or {})
        self._parts, self._text_arguments = False, False
        template = tokenizer.chat_template
        self._source = "\n".join(template.values()) if isinstance(template, dict) else template
        self.writes_date = self.mentions("strftime_now") and "date_string" not in self._options
        self.day = day or today()
        if self.mentions("strftime_now"):
            clock = datetime.datetime.combine(self.day, datetime.time())
            self._options.setdefault("strftime_now", clock.strftime)
        self._parts = self._wants_parts()
        self._text_arguments = self.mentions("tool_calls") and self._wants_text_arguments()

    def mentions(self, name: str) -> bool:
        """Whether the template reads a name at all."""
        return re.search(rf"\b{name}\b", self._source) is not None

    def render(self, messages: Sequence[Message], tools: Any = None, *, generate: bool = False) -> str:
        """Text of a conversation, and of what comes before an answer where one is to be generated.

        Raises:
            BadRow: the template refuses it.
        """
        try:
            return self._render(messages, tools, generate)
        except Exception as error:  # templates raise what they like, by raise_exception or by accident
            raise BadRow(f"the chat template refuses it: {error}") from None

    def continued(self, messages: Sequence[Message], tools: Any = None) -> str:
        """Text up to the end of the last message's content, for an answer that goes on with it.

        Raises:
            BadRow: as in `render`, or that content is not found in it.
        """
        text, content = self.render(messages, tools), messages[-1]["content"]
        at = text.rfind(content.strip())
        if at < 0:
            raise BadRow("the chat template rewrites the assistant's turn that is to be continued")
        end = at + len(content.strip())
        trailing = content[len(content.rstrip()) :]
        return text[: end + len(trailing)] if text.startswith(trailing, end) else text[:end]

    def end_of_turn(self, known: Sequence[int]) -> int | None:
        """The token that the template writes right after an answer; of several there, one that is known for an end."""
        names = {str(token): i for i, token in self._tokenizer.added_tokens_decoder.items()}
        try:
            last = self._render([_QUESTION, _ANSWER], None, False)
            earlier = self._render([_QUESTION, _ANSWER, _QUESTION], None, False)
        except Exception:  # as above: a template may want more than two turns of text
            return None
        if _ANSWERED not in last or _ANSWERED not in earlier:
            return None
        last, earlier = (text.rpartition(_ANSWERED)[2] for text in (last, earlier))
        one, other = _run(last, names), _run(earlier, names)
        both = [a for a, b in zip(one, other, strict=False) if a == b]
        for run in (both, one):
            if run:
                return next((i for i in run if i in known), run[0])
        directly = pattern(names).match(earlier)  # as GLM, in which the next turn's header ends an answer
        following = None if directly is None else names[directly[0]]
        return None if following == self._tokenizer.bos_token_id else following

    def _render(self, messages: Sequence[Message], tools: Any, generate: bool) -> str:
        return self._tokenizer.apply_chat_template(
            [self._shaped(message) for message in messages],
            tools=tools,
            tokenize=False,
            add_generation_prompt=generate,
            **self._options,
        )

    def _shaped(self, message: Message) -> Message:
        if self._parts:
            return {**message, "content": [{"type": "text", "text": message["content"]}]}
        if message.get("tool_calls") and self._text_arguments:
            return {**message, "tool_calls": [_with_text_arguments(call) for call in message["tool_calls"]]}
        return message

    def _wants_parts(self) -> bool:
        """Whether contents are read as lists of parts, as templates for images do, and lost where they are text."""
        try:
            if _ASKED in self._render([_QUESTION], None, True):
                return False
            self._parts = True
            return _ASKED in self._render([_QUESTION], None, True)
        except Exception:
            return False

    def _wants_text_arguments(self) -> bool:
        """Whether a call's arguments are joined with text, so that they must be JSON text and no object."""
        call = {"type": "function", "id": "call00000", "function": {"name": "f", "arguments": {"a": 1}}}
        shapes = ([call], [_with_text_arguments(call)])
        fails = []
        for calls in shapes:
            self._text_arguments = False
            try:
                self._render([_QUESTION, {"role": "assistant", "content": "", "tool_calls": calls}], None, False)
            except Exception:
                fails.append(calls)
        return fails == [shapes[0]]


def _with_text_arguments(call: Any) -> Any:
    function = call.get("function", {}) if isinstance(call, dict) else {}
    if not isinstance(function.get("arguments"), dict):
        return call
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


def _run(text: str, names: Mapping[str, int]) -> list[int]:
    """The added tokens at the start of a text, with nothing but space between them."""
    any_name, found = pattern(names), list[int]()
    while (match := any_name.match(text := text.lstrip())) is not None:
        found.append(names[match[0]])
        text = text[match.end() :]
    return found
