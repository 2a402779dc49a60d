"""Errors that nobody foresaw: one line for the person, and a file with the traceback for whoever mends them."""

from __future__ import annotations

import os
import platform
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from posttrain.errors import PosttrainError
from posttrain.train.watch.redaction import shareable

SHOWN = 300  # characters of an error's own message on the screen
ABOUT = ("posttrain", "torch", "transformers", "accelerate", "peft")


class Unforeseen(PosttrainError):
    """An error of a kind that the package does not know."""


@contextmanager
def tracebacks_kept_in(folder: Path, *, beside: str = "") -> Iterator[None]:
    """An unforeseen error in its body leaves a log in the folder, if it has a file `beside`; else whoever is outside has it.

    Raises:
        Unforeseen: in its place, with the log's path.
    """
    try:
        yield
    except PosttrainError:
        raise
    except Exception as error:
        path = folder / f"error-{os.getpid()}.log"
        if not (folder / beside).exists():
            raise
        try:
            path.write_text(shareable(_described(error)), encoding="utf-8", errors="backslashreplace")
        except OSError:
            raise error from None
        message = " ".join(shareable(str(error)).split())
        shown = f"{type(error).__name__}: {message[:SHOWN]}{'…' if len(message) > SHOWN else ''}"
        raise Unforeseen(f"{shown} (unforeseen; its traceback, for a report: {path.absolute()})") from error


def _described(error: Exception) -> str:
    about = [f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in ABOUT)]
    return "\n".join([" ".join(sys.argv), ", ".join(about), "", *traceback.format_exception(error)])


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "not installed"
