"""Of an answer that calls a tool the tokens that decide which tool it is weigh more.

TL-Training (arXiv:2412.15495): key are the first token of a tool's name, and each at which the name begins to differ from
that of another tool that is offered; they weigh min(others / key, 9) in number of tokens, where they are fewer than the
others, and the loss is divided by the sum of the weights: sft with weights: per_weight. Ours: a token is key that has the
character there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from random import Random
from typing import Any, Literal

from posttrain.data.answers import THINKING
from posttrain.data.columns import KEY
from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig, text_of

NAMES: Mapping[str, re.Pattern[str]] = {
    "hermes": re.compile(r'"name"\s*:\s*"([^"\n]+)"'),
    "qwen3_xml": re.compile(r"<function=([^>\n]+)>"),
    "pythonic": re.compile(r"(?:^|[\[,])\s*([A-Za-z_][\w.-]*)\s*\("),
    "react": re.compile(r"^[ \t]*Action(?:[ \t]+\d+)?[ \t]*:[ \t]*([A-Za-z_][\w.-]*)", re.MULTILINE),
    "tagged": re.compile(r"<([A-Za-z_][\w-]*)>"),
}
"""Where a format has the name of a tool."""


class KeyTokens(TransformConfig):
    """Tokens of a completion that decide which tool is called weigh more, by spans in the column weights."""

    name: Literal["key_tokens"] = "key_tokens"
    format: Literal["hermes", "qwen3_xml", "pythonic", "react", "tagged"]
    """How calls are written in the completion."""
    tools: str = "tools"
    """The column of the tools that are offered, JSON schemas; another one where the chat template has no place for tools."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The completion, and the tools that are offered."""
        return ("completion", self.tools)

    def build(self, rows: Rows) -> Transform:
        """Finds the names."""

        def weighed(record: Record, rng: Random) -> list[Columns]:
            if record.columns.get("weights") is not None:
                raise BadRow("it has weights of its own")
            text, offered = text_of(record.columns, "completion"), _offered(record.columns[self.tools], self.tools)
            places = sorted({*_key(text, self.format, offered)})
            spans = [{"span": [place, place + 1], "weight": KEY} for place in places]
            return [{**record.columns, "weights": spans} if spans else record.columns]

        return weighed


def _key(text: str, written_as: str, tools: list[str]) -> Iterator[int]:
    """Places of the key characters: of each name of a tool behind all thinking, the first, and those where it differs."""
    begin = max((text.rfind(end) + len(end) for _, end in THINKING if end in text), default=0)
    for found in NAMES[written_as].finditer(text, begin):
        if found[1] not in tools:
            continue
        yield found.start(1)
        for other in tools:
            alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found[1], other, strict=False)))
            if other != found[1] and found.start(1) + alike < len(text):
                yield found.start(1) + alike


def _offered(tools: Any, column: str) -> list[str]:
    """Names of tools: of JSON schemas as chat templates are given them, or without `function`; also as JSON text."""
    if isinstance(tools, str):
        try:
            tools = json.loads(tools)
        except ValueError:
            tools = None
    listed: list[Any] = list(tools) if isinstance(tools, (list, tuple)) else []
    schemas = [one.get("function", one) if isinstance(one, dict) else None for one in listed]
    names = [one.get("name") if isinstance(one, dict) else None for one in schemas]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise BadRow(f"{column} must be a list of JSON schemas with names")
    return [str(name) for name in names]
