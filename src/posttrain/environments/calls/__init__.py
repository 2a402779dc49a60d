"""How the policy writes calls of tools, by format: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from posttrain.environments.base import Call
from posttrain.rewards.reading import after_thinking

Read = Callable[[str], Sequence[Call]]
AnyFormat = Literal["none"]
FORMATS: Mapping[str, Read] = {}
"""What reads the calls of a turn's text, by the name of the format."""


def unthought(text: str) -> tuple[str | None, str]:
    """What stands before the end of a turn's last thoughts, its tags among it, and what follows; None where it has none."""
    rest = after_thinking(text)
    if rest is None:
        return text, ""
    return (text[: len(text) - len(rest)] or None), rest
