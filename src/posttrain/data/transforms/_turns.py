"""Which turns of a conversation carry loss, as a transform says: the others get `train: false`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posttrain.data.answers import is_conversation
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Unfit

Message = Mapping[str, Any]


def messages_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The conversation of a row.

    Raises:
        BadRow: it is none.
    """
    messages: Any = columns.get("messages")
    if not is_conversation(messages):
        raise BadRow(f"messages must be a list of messages, not {type(messages).__name__}")
    return [dict(message) for message in messages]


def is_learnt(message: Message) -> bool:
    """Whether it is the assistant's, and not taken out already."""
    weight, train = message.get("weight"), message.get("train")
    return message.get("role") == "assistant" and weight in (None, 1) and train in (None, True, 1)


def without(record: Record, messages: Sequence[Message], is_out: Callable[[int], bool], reason: str) -> list[Columns]:
    """The row without loss on turns of the assistant, by their numbers.

    Raises:
        Unfit: none is left, for this reason.
    """
    own = [number for number, message in enumerate(messages) if is_learnt(message)]
    out = {number for number in own if is_out(number)}
    if own and len(out) == len(own):
        raise Unfit(reason)
    kept = [{**one, "train": False} if number in out else dict(one) for number, one in enumerate(messages)]
    return [{**record.columns, "messages": kept}]
