"""The demonstration that a question brings with it, as the tokens of an answer to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posttrain.data.encoder import Encoder
from posttrain.data.rows import BadRow, LongRow

COLUMNS = ("demonstration", "completion")


class DemonstrationReader:
    """Reads the column `demonstration`, or else `completion`, or else the last message of `messages`, an assistant's.

    A question whose demonstration cannot be used stays a question, and the reason is noted.

    Args:
        encoder: of prompt and completion.
        max_tokens: of an answer.
        on_long: what becomes of a longer one: nothing, an error, or its first `max_tokens`.
    """

    def __init__(self, encoder: Encoder, max_tokens: int, on_long: Literal["skip", "raise", "cut"]) -> None:
        self._encoder, self._max_tokens, self._on_long = encoder, max_tokens, on_long
        self._notes: list[tuple[str, str]] = []

    def read(self, columns: Mapping[str, Any], prompt: Sequence[int]) -> tuple[int, ...] | None:
        """The tokens that answer `prompt`, or None.

        Raises:
            LongRow: it is too long, and that is to be an error.
        """
        given = next((columns[name] for name in COLUMNS if columns.get(name) is not None), _last(columns.get("messages")))
        if given is None:
            return self._none("no_demonstration", "it has no demonstration")
        try:
            row = self._encoder.demonstration({**_plain(columns), "completion": given})
        except LongRow as long:
            if long.refused:
                raise
            return self._none("long_demonstration", f"its demonstration is not used: {long}")
        except BadRow as bad:
            return self._none("bad_demonstration", f"its demonstration is not used: {bad}")
        tokens = tuple(row.completion.tolist())
        if row.prompt.tolist() != list(prompt) or not row.mask.all():
            return self._none("bad_demonstration", "its demonstration is not used: it is no single answer to the prompt")
        if len(tokens) <= self._max_tokens:
            return tokens
        reason = f"it has {len(tokens)} tokens, over the {self._max_tokens} of an answer"
        if self._on_long == "cut":
            self._notes.append(("cut_demonstration", f"its demonstration was cut: {reason}"))
            return tokens[: self._max_tokens]
        if self._on_long == "raise":
            raise LongRow("long_completion", f"the demonstration is too long: {reason}", refused=True)
        return self._none("long_demonstration", f"its demonstration is not used: {reason}")

    def take_notes(self) -> list[tuple[str, str]]:
        """Counter and reason of what was left out or cut since this was last asked."""
        notes, self._notes = [*self._notes, *self._encoder.take_cuts()], []
        return notes

    def _none(self, counter: str, reason: str) -> None:
        self._notes.append((counter, reason))


def _last(messages: Any) -> str | None:
    last = messages[-1] if isinstance(messages, (list, tuple)) and messages else None
    return last.get("content") if isinstance(last, dict) and last.get("role") == "assistant" else None


def _plain(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name != "messages"}
