"""Prompts, completions and conversations through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from posttrain.data.encoding.lengths import Lengths
from posttrain.data.encoding.messages import Conversation, Turn, read_messages, read_tools
from posttrain.data.encoding.prompts import Notes, Prompts, cut_note, guarded
from posttrain.data.encoding.template import Template
from posttrain.data.encoding.text import Text
from posttrain.data.encoding.turns import Draft, Turns
from posttrain.data.rows import BadRow
from posttrain.settings.data import Encoding
from posttrain.telling import tell


class Chat:
    """Encodes rows by a chat template.

    Args:
        template: of the tokenizer.
        text: the tokenizer.
        end: the token that ends an answer to which the template writes no end.
        config: templates and policies.
        lengths: limits.
    """

    def __init__(self, template: Template, text: Text, end: int, config: Encoding, lengths: Lengths) -> None:
        self._template, self._text, self._config, self._lengths = template, text, config, lengths
        self._prompts, self._turns = Prompts(config.prompt_template), Turns(template, text, end)
        self._told = set[str]()

    def prompt(self, columns: Mapping[str, Any]) -> tuple[list[int], Notes]:
        """The prompt as it is asked; one that ends in a turn of the assistant is to be continued.

        Raises:
            BadRow: a column is missing or of the wrong type, or the template refuses it.
        """
        turns, begun = self._asked(columns)
        talk = Conversation(turns, len(turns) - (begun is not None), begun, self._tools(columns))
        talk, cut = self._cut(talk, len(talk.turns), columns)
        talk, ids, notes = self._shown(talk)
        return ids.ids(self._turns.asked(talk)) or self._text.leading, cut + notes

    def drafts(self, columns: Mapping[str, Any], column: str) -> tuple[list[Draft], Notes]:
        """The rows of `messages`, or of a prompt and an answer.

        Raises:
            BadRow: as in `prompt`; there is nothing to learn, or the template does not write it as it is asked.
        """
        if column == "messages":
            turns = self._with_system(read_messages(columns["messages"], column, self._template))
            talk = Conversation(turns, tools=self._tools(columns))
        else:
            talk = self._answered(columns, column)
        talk, cut = self._cut(talk, talk.learnt[0], columns if column != "messages" else {})
        talk, ids, notes = self._shown(talk)
        drafts, more = self._turns.drafts(talk, ids)
        return drafts, cut + notes + more

    def common_prompt(self, columns: Mapping[str, Any], sides: Sequence[str]) -> dict[str, Any]:
        """Conversations in the columns `sides` that hold their prompt, split where the first two begin to differ.

        Raises:
            BadRow: they are no such conversations.
        """
        if text := [side for side in sides if isinstance(columns.get(side), str)]:
            raise BadRow(f"{' and '.join(text)} {'are' if len(text) > 1 else 'is'} text, which needs a prompt")
        read = [read_messages(columns.get(side), side, self._template) for side in sides[:2]]
        shared, most = 0, min(map(len, read))
        for one, other in zip(*read, strict=False):
            if one != other or (one.role == "assistant" and shared == most - 1):
                break
            shared += 1
        if shared == 0 or shared in map(len, read):
            raise BadRow("without a prompt column, chosen and rejected must begin with the same messages and then differ")
        for side in sides[2:]:
            if read_messages(columns.get(side), side, self._template)[:shared] != read[0][:shared]:
                raise BadRow(f"{side} does not begin with the messages that chosen and rejected begin with")
        return {**columns, "prompt": columns["chosen"][:shared], **{side: columns[side][shared:] for side in sides}}

    def _asked(self, columns: Mapping[str, Any]) -> tuple[list[Turn], str | None]:
        """The prompt's turns, and what it has already of an answer."""
        prompt = columns.get("prompt")
        if isinstance(prompt, str):
            return self._with_system([Turn("user", self._prompts.text(columns))]), None
        turns = read_messages(prompt, "prompt", self._template)
        if self._config.prompt_template != "{prompt}":
            raise BadRow("prompt_template wraps text, and the prompt is a list of messages")
        turns = self._with_system(turns)
        return turns, turns[-1].content if turns[-1].role == "assistant" and not turns[-1].more else None

    def _answered(self, columns: Mapping[str, Any], column: str) -> Conversation:
        answer = columns.get(column)
        if isinstance(answer, str) and not answer.strip():
            raise BadRow(f"{column} is empty")
        turns, begun = self._asked(columns)
        tools = self._tools(columns)
        more = [Turn("assistant", answer)] if isinstance(answer, str) else read_messages(answer, column, self._template)
        if begun is None or more[0].role != "assistant":
            return Conversation(turns + more, len(turns), tools=tools)
        if more[0].says_nothing:
            raise BadRow("a turn of the assistant is empty")
        whole = replace(more[0], content=begun + more[0].content)
        return Conversation([*turns[:-1], whole, *more[1:]], len(turns) - 1, begun, tools)

    def _with_system(self, turns: list[Turn]) -> list[Turn]:
        for name in {name for turn in turns for name in turn.unread} - self._told:
            self._told.add(name)
            tell("unread-field", f"Messages have the field {name}, which the chat template does not read.")
        if self._config.system_prompt is None or turns[0].role == "system":
            return turns
        return [Turn("system", self._config.system_prompt), *turns]

    def _tools(self, columns: Mapping[str, Any]) -> Any:
        return read_tools(columns.get("tools"), self._template)

    def _shown(self, talk: Conversation) -> Any:
        """The conversation as it is rendered, and what makes ids of it."""
        said = [(turn.content, turn.more) for turn in talk.turns]
        (said, begun, tools), ids, notes = guarded(self._text, self._config, (said, talk.begun, talk.tools))  # type: ignore[misc]
        if ids is self._text:
            return talk, ids, notes
        turns = [replace(turn, content=text, more=more) for turn, (text, more) in zip(talk.turns, said, strict=True)]
        return replace(talk, turns=turns, begun=begun, tools=tools), ids, notes

    def _cut(self, talk: Conversation, end: int, columns: Mapping[str, Any]) -> tuple[Conversation, Notes]:
        """The conversation with the beginnings of its texts cut, the oldest first, until what is asked before turn `end` is
        within the limit. What templates write around them stays, and so does the system's text.
        """
        notes = Notes()
        if not self._lengths.cuts_prompts:
            return talk, notes
        for at in range(min(end, talk.first) if talk.begun is not None else end):
            if not self._lengths.too_long(self._asked_ids(talk, end)):
                break
            turn = talk.turns[at]
            if turn.role == "system" or not turn.content:
                continue
            asked = columns.get("prompt") if isinstance(columns.get("prompt"), str) else None
            before, whole = talk, turn.content if asked is None else asked

            def with_text(text: str, at: int = at, before: Conversation = before, asked: str | None = asked) -> Conversation:
                content = text if asked is None else self._prompts.written({**columns, "prompt": text})
                return before.with_content(at, content)

            kept = self._lengths.cut_text(whole, lambda text, put=with_text: self._asked_ids(put(text), end))
            talk = with_text(kept)
            notes.append(cut_note(whole, kept))
        return talk, notes

    def _asked_ids(self, talk: Conversation, end: int) -> list[int]:
        talk, ids, _ = self._shown(talk)
        return ids.ids(self._turns.asked(talk, end if end < len(talk.turns) else None))
