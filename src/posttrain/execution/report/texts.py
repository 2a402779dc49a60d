"""Texts of models and of data, made fit to be shown: no character that a terminal or a browser would obey, no novel."""

from __future__ import annotations

SHOWN = 3000  # characters of a text


def printable(text: str) -> str:
    """The text with what does not print, line ends and tabs apart, as the replacement character: escape sequences, marks that
    turn the direction of writing.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


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
