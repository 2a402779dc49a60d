"""Another release of TRL than the one that is installed, from a folder (`pip install --no-deps --target FOLDER trl==…`).

It takes the installed one's place in the process; its rows bear its version and stand beside the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from results import Result

Make = TypeVar("Make")


def put_first(folder: Path) -> str:
    """Has it imported from there, in processes of this one too. Gives its version.

    Raises:
        ValueError: there is no TRL, or another one has been imported already.
    """
    if "trl" in sys.modules:
        raise ValueError("another TRL is imported already")
    if not (folder / "trl/__init__.py").is_file():
        raise ValueError(f"{folder} has no TRL: pip install --no-deps --target {folder} trl==…")
    sys.path.insert(0, str(folder.resolve()))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder.resolve()), os.environ.get("PYTHONPATH")]))
    return metadata.version("trl")


def compared(makes: dict[str, Make]) -> dict[str, Make]:
    """Of the contenders TRL's, and ours, to which their cost is taken."""
    return {name: make for name, make in makes.items() if name.startswith(("TRL", "ours"))}


def failed(case: str, makes: Iterable[str], error: Exception) -> list[Result]:
    """The rows of a case that this release does not run: what it says stands in them."""
    said = (str(error).splitlines() or [""])[0]
    return [Result(case, name, note=f"does not run: {type(error).__name__}: {said}") for name in makes if "TRL" in name]


def named(rows: Iterable[Result], version: str) -> list[Result]:
    """TRL's rows under this release's name."""
    theirs = [row for row in rows if row.implementation.startswith("TRL")]
    return [replace(row, implementation=row.implementation.replace("TRL", f"TRL {version}", 1)) for row in theirs]
