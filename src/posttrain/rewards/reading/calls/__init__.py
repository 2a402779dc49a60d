"""How the policy writes calls of tools, by format: one file and one line here for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from posttrain.rewards.reading.answers import after_thinking
from posttrain.rewards.reading.arguments import Call
from posttrain.rewards.reading.calls import hermes, pythonic, qwen3_xml, react, tagged

Read = Callable[[str], Sequence[Call]]
AnyFormat = Literal["none", "hermes", "qwen3_xml", "pythonic", "react", "tagged"]
FORMATS: Mapping[str, Read] = {
    "hermes": hermes.read,
    "qwen3_xml": qwen3_xml.read,
    "pythonic": pythonic.read,
    "react": react.read,
    "tagged": tagged.read,
}
"""What reads the calls of a turn's text, by the name of the format; of any text, and it never raises. A call that cannot be
read has a fault; a text without one has none. Thinking is cut off before, by `unthought`."""

EXAMPLES: Mapping[str, str] = {
    "hermes": hermes.EXAMPLE,
    "qwen3_xml": qwen3_xml.EXAMPLE,
    "pythonic": pythonic.EXAMPLE,
    "react": react.EXAMPLE,
    "tagged": tagged.EXAMPLE,
}


def described(name: AnyFormat, tools: Sequence[Mapping[str, Any]]) -> str:
    """The tools in words, and how the format calls one; nothing where there is no format."""
    if name == "none":
        return ""
    schemas = "\n".join(json.dumps(one, ensure_ascii=False) for one in tools)
    return f"You may call these tools, of which each has a JSON schema:\n{schemas}\nA call is written so:\n{EXAMPLES[name]}"


def unthought(text: str) -> tuple[str | None, str]:
    """What stands before the end of a turn's last thoughts, its tags among it, and what follows; None where it has none.

    Thoughts that do not end are all of the turn: nothing follows them. Where the template opens them in the prompt, the text
    begins with that, as `AnswerText.of` has it.
    """
    rest = after_thinking(text)
    if rest is None:
        return text, ""
    return (text[: len(text) - len(rest)] or None), rest
