"""The text of a row's prompt, and what is common to rows of plain text and of messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from posttrain.data.columns import TemplateFields, names_of
from posttrain.data.encoding.text import Ids, Text, TextOnly
from posttrain.data.rows import BadRow, DataReport
from posttrain.settings.data import Encoding
from posttrain.telling import tell

T = TypeVar("T")
Notes = list[tuple[str, str]]
"""Counter and reason of what was cut, is not used, or is done otherwise than one may expect."""

_TOLD = {
    "special_tokens_as_text": "{number} rows have names of special tokens in their text, which are text to the model; "
    "data.special_tokens: tokens takes them for the tokens.",
    "changed_answer": "of {number} rows the chat template changes or drops a part of an answer, so that it is not trained as "
    "it was given (left_out.jsonl).",
}


class Prompts:
    """A template for the texts of prompts; `key` is what it is called in a recipe."""

    def __init__(self, template: str, key: str = "prompt_template") -> None:
        self._template, self._key = template, key
        self.fields = names_of(self._template)

    def text(self, columns: Mapping[str, Any]) -> str:
        """The text of a row's prompt.

        Raises:
            BadRow: as in `written`, or it is empty.
        """
        text = self.written(columns)
        if not text.strip():
            raise BadRow("prompt is empty")
        return text

    def written(self, columns: Mapping[str, Any]) -> str:
        """The same, empty or not.

        Raises:
            BadRow: the template names what the row does not have, or what is neither text nor a number.
        """
        if not isinstance(columns.get("prompt"), str):
            raise BadRow(f"prompt must be text, not {type(columns.get('prompt')).__name__}")
        try:
            return self._template.format_map(TemplateFields(columns, self._key))
        except BadRow:
            raise
        except (ValueError, TypeError) as error:
            raise BadRow(f"{self._key} does not fit the row: {error}") from None


def guarded(text: Text, config: Encoding, value: T) -> tuple[T, Ids, Notes]:
    """What a row says with what makes ids of it: names of special tokens in it are text, unless the recipe wants the tokens.

    Raises:
        BadRow: the tokenizer cannot write them as text.
    """
    names = [] if config.special_tokens == "tokens" else text.names(value)
    if not names:
        return value, text, []
    own: TextOnly = text.as_text
    reason = f"names of special tokens in its text are text: {', '.join(names[:3])}"
    return own.hide(value), own, [("special_tokens_as_text", reason)]


def tell_counts(report: DataReport, label: str) -> None:
    """Says how many records of a set are not trained as one may expect."""
    for counter, sentence in _TOLD.items():
        if number := report.counters[counter]:
            tell(counter.replace("_", "-"), f"{label}: {sentence.format(number=number)}")


def cut_note(before: str, after: str) -> tuple[str, str]:
    """That the beginning of a text was cut."""
    return "cut_prompt", f"the first {len(before) - len(after)} of {len(before)} characters of its text were cut"
