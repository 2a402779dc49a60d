"""Of a conversation with tools the turns whose calls failed are read, and not learnt.

TL-Training (arXiv:2412.15495): a turn of the assistant after which a tool says that there is an error carries no loss; what
follows does, and so mistakes are seen mended, and not imitated. Ours: how an error is known, and that of several calls one
that failed is enough.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Literal

from pydantic import field_validator

from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, usable
from posttrain.data.transforms._turns import is_learnt, messages_of, without
from posttrain.telling import tell

MARKS = ("error", "is_error", "isError")
"""Keys of a message that say so, true or a text: ours, and those of others' formats."""
ERROR = (
    r"(?i:error\b|traceback\b)|[\w.]*(?:Error|Exception):|\{\s*\"error\"\s*:(?!\s*(?:\"\"|null\b|false\b|\{\s*\}|\[\s*\]))"
)


class MaskFailedCalls(TransformConfig):
    """Of a conversation the assistant's turns whose calls failed carry no loss; what a tool answers says whether they did."""

    name: Literal["mask_failed_calls"] = "mask_failed_calls"
    pattern: str | None = ERROR
    r"""A regular expression for the beginning of a tool's answer that is an error; by default `Error…`, `Traceback…`,
    `ValueError: …` and the like, and JSON with an error that is not empty. null: a message's key alone says so, error: true
    (or is_error, isError)."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    @property
    def columns(self) -> tuple[str, ...]:
        """None that each row must have: rows that are no conversations stay as they are."""
        return ()

    def build(self, rows: Rows) -> Transform:
        """Counts, and tells, how many there are."""
        found = None if self.pattern is None else re.compile(self.pattern)

        def failed(messages: Sequence[Mapping[str, Any]]) -> list[int]:
            """Numbers of learnt turns that an error follows, before the next one of the assistant."""
            turn, numbers = None, list[int]()
            for number, message in enumerate(messages):
                if message.get("role") == "assistant":
                    turn = number if is_learnt(message) else None
                elif turn is not None and _is_error(message, found):
                    numbers.append(turn)
                    turn = None
            return numbers

        def counted(columns: Columns) -> tuple[int, int]:
            messages = messages_of(columns)
            return len(failed(messages)), sum(map(is_learnt, messages))

        counts = [*usable(rows, counted)]
        masked, turns = (sum(one[place] for one in counts) for place in (0, 1))
        some = f"of {turns} turns of the assistant {masked} have a call that failed, and carry no loss"
        none = f"no call of {turns} turns of the assistant failed, by its pattern or a message's key error: nothing is masked"
        tell("failed-calls", f"data.transforms ({self.name}): {some if masked else none}.")

        def masking(record: Record, rng: Random) -> list[Columns]:
            if record.columns.get("messages") is None:
                return [record.columns]
            messages = messages_of(record.columns)
            out = set(failed(messages))
            read = [{key: value for key, value in one.items() if key not in MARKS} for one in messages]
            return without(record, read, lambda number: number in out, "all of its turns have calls that failed")

        return masking


def _is_error(message: Mapping[str, Any], pattern: re.Pattern[str] | None) -> bool:
    """Whether a message says that a call failed: by its keys, or of a tool by its text."""
    if any(message.get(mark) not in (None, False, "", "false", "False") for mark in MARKS):
        return True
    content = message.get("content")
    if message.get("role") != "tool" or pattern is None or not isinstance(content, str):
        return False
    return pattern.match(content.lstrip()) is not None
