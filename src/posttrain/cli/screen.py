"""What is printed: answers on stdout, errors and what is told on stderr; nothing that a terminal would obey but our own."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from posttrain.execution.report.texts import printable
from posttrain.train.watch.redaction import shareable


class Screen(Console):
    """A console on which text of a model, of data or of another machine is only shown: what a terminal would obey in it is
    replaced, wherever it is printed.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See rich."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


out, err = Screen(emoji=False), Screen(stderr=True, emoji=False, highlight=False, soft_wrap=True)


def take_any_text() -> None:
    """Has both streams write characters that their encoding lacks as escapes, where Python would raise an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """A line, with `~` for the home folder, as a shell takes it, and without secrets: what is on a screen is copied."""
    out.print(shareable(text), markup=False, soft_wrap=True)


class _ToScreen(logging.Handler):
    """Above the progress bar, where there is one; else on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        console = out if out.is_terminal else err
        console.print("warning:", style="bold yellow", end=" ")
        console.print(shareable(record.getMessage()), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def warnings_on_screen(*, quiet: bool) -> Iterator[None]:
    """While entered, what the package warns of is on the screen, and not where Python's logging would bring it.

    Args:
        quiet: this is a process beside another one that says the same.
    """
    log, handler = logging.getLogger("posttrain"), logging.NullHandler() if quiet else _ToScreen()
    log.addHandler(handler)
    before, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before
