"""Texts of models and of data, made fit to be shown: no character that a terminal or a browser would obey, no novel."""

from __future__ import annotations

import re

SHOWN = 3000  # characters of a text
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, those that turn the direction of writing around, and half characters."""


def printable(text: str) -> str:
    """The text with what is obeyed as the replacement character."""
    return OBEYED.sub("\N{REPLACEMENT CHARACTER}", text)


def marked(text: str) -> str:
    """The same with marks for line ends and tabs."""
    return printable(text).replace("\n", "⏎\n").replace("\t", "⇥\t")


def shortened(text: str) -> str:
    """The text, or its beginning and end and how much is left out between."""
    if len(text) <= SHOWN:
        return text
    half = SHOWN // 2
    return (
        f"{text[:half]}\n[… {len(text) - 2 * half:,} characters more, in completions/ of the run's folder …]\n{text[-half:]}"
    )
