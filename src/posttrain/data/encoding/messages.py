"""Messages of a row, read and checked: what a template is given, and which of the assistant's turns are learnt."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posttrain.data.encoding.template import Message, Template
from posttrain.data.rows import BadRow

ROLES = ("system", "user", "assistant", "tool", "developer")
REASONING = ("reasoning_content", "reasoning", "thinking")
_MEANT = ("tool_calls", *REASONING)  # without them an answer is another one
_HANDED_ON = (*_MEANT, "name", "tool_call_id")
_REFUSED = ("function_call", "images", "image", "audio", "video")
_TRAINED = ("weight", "train")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message: role, text, what else the template is given; and whether it is learnt, where it is the assistant's."""

    role: str
    content: str
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trained: bool = True
    unread: tuple[str, ...] = ()
    """Its fields that nothing reads."""

    @property
    def message(self) -> Message:
        """What a template is given."""
        return {"role": self.role, "content": self.content, **self.more}

    @property
    def reasoning(self) -> str | None:
        """What was thought before the answer, where it stands apart from it."""
        return next((self.more[name] for name in REASONING if self.more.get(name)), None)

    @property
    def says_nothing(self) -> bool:
        """Neither text nor a call nor a thought."""
        return not self.content.strip() and not any(self.more.get(name) for name in _MEANT)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns, and the tools that they may call. `first` is the first turn that may be learnt, and `begun` what the prompt has
    of it already.
    """

    turns: Sequence[Turn]
    first: int = 0
    begun: str | None = None
    tools: Any = None

    def messages(self, end: int | None = None) -> list[Message]:
        """Those before a turn, or all."""
        return [turn.message for turn in self.turns[:end]]

    def with_content(self, at: int, content: str) -> Conversation:
        """The same with another text of one turn."""
        turns = list(self.turns)
        turns[at] = replace(turns[at], content=content)
        return replace(self, turns=turns)

    @property
    def texts(self) -> list[Any]:
        """All that a row says, for those who look for something in it."""
        return [self.messages(), self.tools]

    @property
    def learnt(self) -> list[int]:
        """Numbers of the turns that are learnt.

        Raises:
            BadRow: there is none, or one says nothing.
        """
        own = [i for i, turn in enumerate(self.turns) if i >= self.first and turn.role == "assistant"]
        if not own:
            raise BadRow("no turn of the assistant")
        if own[0] == 0:
            raise BadRow("it begins with a turn of the assistant, and nothing before it asks for that")
        learnt = [i for i in own if self.turns[i].trained]
        if not learnt:
            raise BadRow("no turn of the assistant is to be trained (weight: 0 or train: false on each)")
        if any(self.turns[i].says_nothing for i in learnt):
            raise BadRow("a turn of the assistant is empty")
        return learnt


def read_messages(value: Any, column: str, template: Template) -> list[Turn]:
    """Turns of a column.

    Raises:
        BadRow: it is no list of messages, or has what would change its meaning and cannot be honoured.
    """
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRow(f"{column} must be text or a list of messages, not {type(value).__name__}")
    return [_turn(message, column, template) for message in value]


def read_tools(value: Any, template: Template | None) -> Any:
    """The tools of a row, from a list of their JSON schemas, or that as JSON text; None where there are none.

    Raises:
        BadRow: they are no such list, or there is no place for them.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except ValueError:
            raise BadRow("tools must be a list of JSON schemas, or that as JSON text") from None
    if not value:
        return None
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadRow("tools must be a list of JSON schemas")
    if template is None or not template.mentions("tools"):
        raise BadRow("it has tools, and the chat template has no place for them")
    return value


def _turn(message: Any, column: str, template: Template) -> Turn:
    if not isinstance(message, dict):
        raise BadRow(f"{column}: a message is {{role: …, content: text}}, not {str(message)[:60]!r}")
    given = {name: value for name, value in message.items() if value not in (None, "", [], {})}
    role = given.get("role")
    if role not in ROLES:
        raise BadRow(f"{column}: the role {role!r} is none of {', '.join(ROLES)}")
    if role == "developer" and not template.mentions("developer"):
        role = "system"  # as it was called before
    for name in given:
        if name in _REFUSED or (name in _MEANT and not template.mentions(name)):
            raise BadRow(f"{column}: a message has {name}, for which {_no_place(name)}")
    more = {name: given[name] for name in _HANDED_ON if name in given and (name in _MEANT or template.mentions(name))}
    unread = tuple(sorted(map(str, set(given) - set(more) - {"role", "content", *_TRAINED})))
    for name in REASONING:
        if name in more and not isinstance(more[name], str):
            raise BadRow(f"{column}: {name} must be text, not {type(more[name]).__name__}")
    if "tool_calls" in more:
        more["tool_calls"] = _calls(more["tool_calls"], column)
    content = _text(message.get("content"), column, message, may_lack=any(name in more for name in _MEANT))
    return Turn(role, content, more, _trained(given, role, column), unread)


def _no_place(name: str) -> str:
    if name == "function_call":
        return "tool_calls is the form that is read"
    return "the chat template has no place" if name in _MEANT else "a model of text has no place"


def _text(content: Any, column: str, message: Any, *, may_lack: bool) -> str:
    if content is None and may_lack:
        return ""
    if isinstance(content, (list, tuple)) and content:
        return "\n".join(_part(part, column) for part in content)
    if not isinstance(content, str):
        raise BadRow(f"{column}: a message is {{role: …, content: text}}, not {str(message)[:60]!r}")
    return content


def _part(part: Any, column: str) -> str:
    kind = part.get("type", "text") if isinstance(part, dict) else None
    if isinstance(part, dict) and kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    raise BadRow(f"{column}: a content has a part of type {kind!r}; text is all that can be trained on")


def _trained(given: Mapping[str, Any], role: str, column: str) -> bool:
    """By `weight` and `train`, where a turn has them: 0 and 1, false and true."""
    trained = True
    for name in _TRAINED:
        if name not in given:
            continue
        value = given[name]
        if value not in (0, 1):
            raise BadRow(f"{column}: a turn's {name} is {value!r}; 0 and 1 can be honoured, no other weight")
        if value and role != "assistant" and name == "train":
            raise BadRow(f"{column}: train: true on a turn of the {role}; the assistant's alone are learnt")
        trained = trained and bool(value)
    return trained


def _calls(calls: Any, column: str) -> list[Any]:
    """Calls with their arguments as an object, which may have been given as JSON text."""
    if not isinstance(calls, (list, tuple)) or not all(isinstance(call, dict) for call in calls):
        raise BadRow(f"{column}: tool_calls must be a list of {{type: function, function: {{name: …, arguments: …}}}}")
    return [_call(call) for call in calls]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, str):
        return call
    try:
        read = json.loads(arguments)
    except ValueError:
        return call
    if not isinstance(read, dict):
        return call
    changed = {**function, "arguments": read}
    return {**call, "function": changed} if "function" in call else changed
