"""How the policy writes calls of tools, by format: one file and one line here for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from posttrain.environments.base import Call

Read = Callable[[str], Sequence[Call]]
AnyFormat = Literal["none"]
FORMATS: Mapping[str, Read] = {}
"""What reads the calls of a turn's text, by the name of the format."""
