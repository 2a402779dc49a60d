"""What stands between two turns of the policy, as token ids: the end of a turn, others' words in the template's frame, and
what it writes before the next turn. What was sampled is never decoded and encoded again; ids are appended to ids.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.encoding.template import Message, Template
from posttrain.data.encoding.text import Ids, Text, TextOnly
from posttrain.data.rows import BadRow
from posttrain.errors import SetupError
from posttrain.settings.data import Encoding

_ASKED, _ANSWERED, _SAID = "Qzaskedzq", "Qzansweredzq", "Qzsaidzq"  # what no template looks for
_MARK = " [...] "
_LONGEST = 128  # characters of a token, at most, as far as a text is looked at before it is cut


@dataclass(frozen=True, slots=True)
class Glued:
    """Ids that follow a turn; and whether what was said in them was cut."""

    ids: list[int]
    cut: bool = False


def has_tools(tokenizer: Any, config: Encoding) -> bool:
    """Whether there is a chat template with a place for tools; results of tools are else said by the user."""
    return bool(config.chat_template and tokenizer.chat_template and Template(tokenizer).mentions("tools"))


class Glue:
    """Makes the ids between turns.

    Where there is a chat template, they are what it writes after an answer, found by a short conversation: an answer that no
    template looks for, others' messages, and the next generation prompt. Names of special tokens in a message are text.
    Where there is none, each message stands between `before` and `after`.

    Args:
        tokenizer: of transformers.
        config: the templates of the data.
        eos_ids: every token that ends an answer.
        before, after: text around a message, where there is no chat template.
        limit: tokens of what is said after one turn; more are cut out of the middle.
    """

    def __init__(
        self, tokenizer: Any, config: Encoding, eos_ids: Sequence[int], *, before: str = "", after: str = "", limit: int = 512
    ) -> None:
        self._template, ends = None, [*eos_ids]
        if config.chat_template and tokenizer.chat_template:
            self._template = Template(tokenizer, config.chat_template_kwargs, config.date)
            end = self._template.end_of_turn(eos_ids)
            ends += [end] if end is not None and end not in ends else []
        self._text, self._frame, self._limit = Text(tokenizer, ends), (before, after), limit
        self._has_tools = has_tools(tokenizer, config)
        self._only: TextOnly | None = None

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a turn."""
        return self._text.ends

    def check(self, *, tools: Any = None) -> None:
        """That what is written after a turn does not depend on the turns before it.

        Raises:
            SetupError: it does, or the template refuses or drops what others say.
        """
        if self._template is None:
            return
        for role in ("user", *(("tool",) if tools and self._has_tools else ())):
            said = {"role": role, "content": _SAID, **({"name": "f"} if role == "tool" else {})}
            calls = [("f", {"a": 1})] if role == "tool" else []
            try:
                glues = [self._written([said], calls, tools, turns) for turns in range(3)]
            except BadRow as error:
                raise SetupError(f"environment: {error}, in a message of the {role}. {_CURE}") from None
            if _SAID not in glues[0]:
                raise SetupError(f"environment: the chat template drops what the {role} says after an answer. {_CURE}")
            if len(set(glues)) > 1:
                raise SetupError(
                    f"environment: the chat template writes a message of the {role} otherwise after one turn than after "
                    f"several ({glues[0][-40:]!r}, {glues[-1][-40:]!r}): it cannot be appended. {_CURE}"
                )

    def of(
        self,
        last: int | None,
        messages: Sequence[Mapping[str, str]],
        calls: Sequence[tuple[str, Mapping[str, Any]]] = (),
        tools: Any = None,
    ) -> Glued:
        """The ids after a turn whose last one is `last`.

        Args:
            last: a token that ends answers ends the turn; another one was cut off, and the end is among these ids.
            messages: what others say, each with a role and a content.
            calls: name and arguments of the tools that the turn called, which some templates name again.
            tools: their JSON schemas.

        Raises:
            BadRow: the template refuses it, or the tokenizer has no ids for a part.
        """
        contents = [message["content"] for message in messages]
        names = any(self._text.special_name.search(one) for one in contents)
        ids: Ids = self._as_text if names else self._text
        kept = self._within_limit(contents, ids)
        said: list[Message] = [{**message, "content": text} for message, text in zip(messages, kept, strict=True)]
        if not self._has_tools:
            said, calls, tools = [{**one, "role": "user"} if one["role"] == "tool" else one for one in said], (), None
        if names:
            said = self._as_text.hide(said)
        if self._template is None:
            before, after = self._frame
            made = ids.ids("".join(f"{before}{one['content']}{after}" for one in said))
        else:
            made = ids.ids(self._written(said, calls, tools))
            made = made[self._ended(last, made, tools) :]
        return Glued(made, kept != contents)

    def cut(self, said: str) -> str:
        """What is said, without its middle where it is over the limit."""
        return self._within_limit([said], self._as_text if self._text.special_name.search(said) else self._text)[0]

    @property
    def _as_text(self) -> TextOnly:
        if self._only is None:
            self._only = TextOnly(self._text, self._text.special_name)
        return self._only

    def _written(
        self, said: Sequence[Message], calls: Sequence[tuple[str, Mapping[str, Any]]], tools: Any, turns: int = 0
    ) -> str:
        """What the template writes after an answer that comes after so many other turns."""
        assert self._template is not None
        answered = {"role": "assistant", "content": _ANSWERED}
        before = [{"role": "user", "content": _ASKED}, *([answered, said[0]] if not calls else []) * turns]
        if calls:
            calling = {**answered, "tool_calls": [_call(i, *call) for i, call in enumerate(calls)]}
            before += [calling, said[0]] * turns
            try:
                closed, whole = (
                    self._after([*before, calling], tools),
                    self._after([*before, calling, *said], tools, ask=True),
                )
                if whole.startswith(closed):
                    return self._after([*before, answered], tools) + whole[len(closed) :]
            except BadRow:
                pass  # it has no place for calls, and the results may stand without
        return self._after([*before, answered, *said], tools, ask=True)

    def _after(self, messages: Sequence[Message], tools: Any, *, ask: bool = False) -> str:
        assert self._template is not None
        _, found, after = self._template.render(messages, tools, generate=ask).rpartition(_ANSWERED)
        if not found:
            raise BadRow("the chat template drops an answer")
        return after

    def _ended(self, last: int | None, made: Sequence[int], tools: Any) -> int:
        """How many of the ids the turn's own end stands for."""
        ends = self._text.ends
        if last not in ends:
            return 0
        written = self._text.ids(self._after([{"role": "user", "content": _ASKED}, _ANSWER], tools))
        closing = next((i + 1 for i, one in enumerate(written) if one in ends), 0)
        if closing and list(made[:closing]) == written[:closing]:
            return closing
        return 1 if made and made[0] == last else 0

    def _within_limit(self, contents: Sequence[str], ids: Ids) -> list[str]:
        if sum(len(text.encode(errors="replace")) for text in contents) <= self._limit:  # no token is shorter than a byte
            return [*contents]
        share = self._limit // max(len(contents), 1)
        return [self._cut(text, share, ids) for text in contents]

    def _cut(self, text: str, most: int, ids: Ids) -> str:
        """A text of at most so many tokens: its beginning and its end, where it has more."""

        def size(text: str) -> int:
            return len(ids.ids(self._as_text.hide(text) if ids is self._only else text))

        if len(text) <= most * _LONGEST and size(text) <= most:
            return text
        mark = _MARK if self._knows(_MARK) else ""

        def kept(number: int) -> str:
            return text[: number - number // 2] + mark + text[len(text) - number // 2 :]

        known = range(min(len(text), most * _LONGEST))
        return kept(max(bisect_right(known, most, key=lambda number: size(kept(number))) - 1, 0))

    def _knows(self, text: str) -> bool:
        try:
            self._text.ids(text)
        except BadRow:
            return False
        return True


_ANSWER = {"role": "assistant", "content": _ANSWERED}
_CURE = "Take a template that writes a history as it wrote the answers, or data.chat_template: false with environment.before."


def _call(number: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "function", "id": f"call{number:05}", "function": {"name": name, "arguments": dict(arguments)}}
