"""Prompts and completions joined as plain text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.data.encoding.lengths import Lengths
from posttrain.data.encoding.prompts import Notes, Prompts, cut_note, guarded
from posttrain.data.encoding.text import Ids, Text
from posttrain.data.encoding.turns import Draft
from posttrain.data.rows import BadRow
from posttrain.settings.data import Encoding


class Plain:
    """Encodes rows of text: what the tokenizer puts before a text, the prompt, the answer, an end token.

    Args:
        text: the tokenizer.
        config: templates and policies.
        lengths: limits.
    """

    def __init__(self, text: Text, config: Encoding, lengths: Lengths) -> None:
        self._text, self._config, self._lengths, self._prompts = text, config, lengths, Prompts(config.prompt_template)

    def prompt(self, columns: Mapping[str, Any]) -> tuple[list[int], Notes]:
        """The prompt as it is asked.

        Raises:
            BadRow: a column is missing or of the wrong type.
        """
        prompt, _, _, notes = self._asked(columns, "")
        return prompt, notes

    def drafts(self, columns: Mapping[str, Any], column: str) -> tuple[list[Draft], Notes]:
        """The row of a prompt and an answer.

        Raises:
            BadRow: as in `prompt`; the answer is no text, or empty.
        """
        if column == "messages":
            raise BadRow("messages need chat_template: true")
        answer = columns.get(column)
        if not isinstance(answer, str):
            raise BadRow(f"{column} must be text where chat_template is false, not {type(answer).__name__}")
        if not answer.strip():
            raise BadRow(f"{column} is empty")
        end = next((i for i in self._text.ends if answer.endswith(self._text.special.get(i, "\0"))), None)
        if end is not None:  # as many write it
            answer = answer.removesuffix(self._text.special[end])
        prompt, said, ids, notes = self._asked(columns, answer)
        before, answer = said
        draft = Draft(prompt)
        draft.add(self._after(ids, before, answer), learnt=True)
        if not draft.completion or end is not None or draft.completion[-1] not in self._text.ends:
            draft.add([self._text.ends[0] if end is None else end], learnt=True)
        return [draft], notes

    def _asked(self, columns: Mapping[str, Any], answer: str) -> tuple[list[int], tuple[str, str], Ids, Notes]:
        """The prompt's ids; its text and the answer's, and what makes ids of them."""
        if columns.get("tools"):
            raise BadRow("it has tools, which need a chat template that writes them")
        used = {name: columns[name] for name in ("prompt", *self._prompts.fields) if name in columns}
        (used, answer), ids, notes = guarded(self._text, self._config, (used, answer))  # type: ignore[misc]

        def encoded(text: str) -> list[int]:
            return self._text.leading + ids.ids(self._prompts.written({**used, "prompt": text}))

        before = self._prompts.text(used)
        prompt = self._text.leading + ids.ids(before)
        if self._lengths.cuts_prompts and self._lengths.too_long(prompt):
            whole = used["prompt"]
            kept = self._lengths.cut_text(whole, encoded)
            before = self._prompts.written({**used, "prompt": kept})
            prompt, notes = encoded(kept), [*notes, cut_note(whole, kept)]
        return prompt, (before, answer), ids, notes

    def _after(self, ids: Ids, before: str, answer: str) -> list[int]:
        """Ids of an answer, as they follow the prompt's where both are one text."""
        if not answer:
            return []
        if self._text.joins:
            return ids.ids(answer)
        asked, whole = ids.ids(before), ids.ids(before + answer)
        return whole[len(asked) :] if whole[: len(asked)] == asked else ids.ids(answer)
