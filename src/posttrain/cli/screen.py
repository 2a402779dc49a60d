"""What is printed: answers on stdout, errors on stderr."""

from __future__ import annotations

from rich.console import Console

out, err = Console(), Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A line, as it is."""
    out.print(text, markup=False, soft_wrap=True)
