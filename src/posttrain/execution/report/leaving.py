"""What a run leaves for people; whatever is wrong with that is told, and is no failure of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posttrain.execution.report.card import write_card
from posttrain.execution.report.page import write_report
from posttrain.telling import tell


def leave_page(folder: Path) -> None:
    """`report.html`, where a run has begun."""
    if (folder / "recipe.yaml").is_file():
        _leave(write_report, folder)


def leave_card(folder: Path) -> None:
    """The card beside the final model."""
    _leave(write_card, folder)


def _leave(write: Callable[[Path], Any], folder: Path) -> None:
    try:
        write(folder)
    except Exception as error:
        kind = type(error).__name__
        tell(
            "report",
            f"{folder}: the page or the card of the run was not written ({kind}: {error}). posttrain report tries it again.",
        )
