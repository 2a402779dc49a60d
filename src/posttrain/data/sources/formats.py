"""Rows as other tools write them → rows of our columns: by the format that is named, or by their shape.

messages: messages, prompt, completion, chosen, rejected, as OpenAI and TRL have them. sharegpt: conversations: [{from: human,
value: …}, {from: gpt, value: …}], and system. alpaca: instruction, input, output (or chosen and rejected), system, history.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, cast

from posttrain.data.sources.record import Record
from posttrain.settings.data import Format

Columns = dict[str, Any]
CONVERSATIONS = ("messages", "prompt", "completion", "chosen", "rejected", "reference", "demonstration")
"""Columns that may be lists of messages."""
ANSWERS = ("completion", "chosen", "rejected", "reference")
"""Columns that may be one message."""
ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bard": "assistant",
    "bing": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
    "developer": "system",
}
"""Of other tools and of newer interfaces: ours. `developer` is what newer interfaces call the system's role."""


class Misshapen(ValueError):
    """A row that is not of its format; the message is the reason."""


def shaped(record: Record, asked: Format | None) -> Record:
    """The record with our columns, and with how it was written."""
    if record.fault is not None:
        return record
    try:
        columns, form = _row(record.columns, asked)
        for name in CONVERSATIONS:
            if (turns := _listed(name, columns.get(name))) is not None:
                theirs = asked != "messages" and any(map(_is_sharegpt, turns))
                columns[name] = [_message(_ours(turn) if theirs else turn, name) for turn in turns]
                form = "sharegpt" if theirs else form
    except Misshapen as wrong:
        return Record(record.where, {}, str(wrong))
    return Record(record.where, columns, None, record.mapped, form)


def _row(given: Columns, asked: Format | None) -> tuple[Columns, Format | None]:
    for form, (is_one, convert) in FORMATS.items():
        if asked == form or (asked is None and is_one(given)):
            return convert(dict(given)), form
    return dict(given), asked


def _has_conversations(given: Columns) -> bool:
    return "conversations" in given and "messages" not in given


def _of_sharegpt(columns: Columns) -> Columns:
    turns = _listed("conversations", columns.pop("conversations", columns.get("messages")))
    if turns is None:
        raise Misshapen("format: sharegpt, and the row has no list conversations")
    system = columns.pop("system", None)
    messages = [{"role": "system", "content": _text("system", system)}] * bool(system) + turns
    pair = {side: columns[side] for side in ANSWERS[1:] if isinstance(columns.get(side), dict)}
    if pair:
        return {**columns, "prompt": messages, **{side: [turn] for side, turn in pair.items()}}
    return {**columns, "messages": messages}


def _has_instruction(given: Columns) -> bool:
    ours = any(given.get(name) is not None for name in ("messages", "prompt", "completion"))
    return not ours and "instruction" in given and ("output" in given or {"chosen", "rejected"} <= set(given))


def _of_alpaca(columns: Columns) -> Columns:
    parts = [_text(name, columns.pop(name, None)) for name in ("instruction", "input")]
    system, history = _text("system", columns.pop("system", None)), columns.pop("history", None) or []
    if not parts[0].strip():
        raise Misshapen("format: alpaca, and the row has no instruction")
    prompt: Any = "\n".join(part for part in parts if part.strip())
    if system or history:
        earlier = [message for asked, answered in _pairs(history) for message in (_user(asked), _assistant(answered))]
        prompt = [{"role": "system", "content": system}] * bool(system) + earlier + [_user(prompt)]
    output = columns.pop("output", None)
    if output is None:
        return {**columns, "prompt": prompt}
    if history:
        return {**columns, "messages": [*prompt, _assistant(_text("output", output))]}
    return {**columns, "prompt": prompt, "completion": _text("output", output)}


def _pairs(history: Any) -> list[tuple[str, str]]:
    pairs = history if isinstance(history, (list, tuple)) else [history]
    if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise Misshapen("history must be a list of [question, answer]")
    return [(_text("history", asked), _text("history", answered)) for asked, answered in pairs]


def _user(text: str) -> Columns:
    return {"role": "user", "content": text}


def _assistant(text: str) -> Columns:
    return {"role": "assistant", "content": text}


def _text(name: str, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise Misshapen(f"{name} must be text, not {type(value).__name__}")
    return value or ""


def _listed(name: str, value: Any) -> list[Any] | None:
    """A list of messages, which tables may hold as JSON text; None where the column is none."""
    if isinstance(value, str) and name in ("messages", "conversations"):
        try:
            value = json.loads(value)
        except ValueError:
            raise Misshapen(f"{name} must be a list of messages, or the JSON text of one, and it is other text") from None
        if not isinstance(value, list):
            raise Misshapen(f"{name} must be a list of messages, and its JSON text holds {type(value).__name__}")
    if isinstance(value, dict) and name in ANSWERS and {"content", "value"} & set(value):
        return [value]
    return list(cast(Any, value)) if isinstance(value, (list, tuple)) else None


def _is_sharegpt(turn: Any) -> bool:
    return isinstance(turn, dict) and "from" in turn and "value" in turn and turn.get("role") is None


def _ours(turn: Any) -> Any:
    return {"role": turn["from"], "content": turn["value"], **_without(turn)} if _is_sharegpt(turn) else turn


def _without(turn: Mapping[str, Any]) -> Columns:
    return {name: value for name, value in turn.items() if name not in ("from", "value", "role")}


def _message(turn: Any, name: str) -> Any:
    """A message of OpenAI's form with text for its content; what is none is left for the encoder to refuse."""
    if not isinstance(turn, Mapping):
        return turn
    message = dict(cast(Mapping[str, Any], turn))
    if isinstance(message.get("content"), (list, tuple)):
        message["content"] = "\n".join(_part(part, name) for part in message["content"])
    if message.get("role") == "function_call":
        message |= {"content": "", "tool_calls": [{"type": "function", "function": _call(message["content"])}]}
    if isinstance(role := message.get("role"), str):
        message["role"] = ROLES.get(role, role)
    return message


def _part(part: Any, name: str) -> str:
    """The text of a part of a content."""
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise Misshapen(f"{name}: a message holds a part of type {kind}, and only text can be trained on")


def _call(text: Any) -> Columns:
    try:
        call = json.loads(text)
        return {"name": call["name"], "arguments": call["arguments"]}
    except (ValueError, TypeError, KeyError):
        raise Misshapen("a function_call must be the JSON text of {name: …, arguments: …}") from None


FORMATS: dict[Format, tuple[Callable[[Columns], bool], Callable[[Columns], Columns]]] = {
    "sharegpt": (_has_conversations, _of_sharegpt),
    "alpaca": (_has_instruction, _of_alpaca),
}
