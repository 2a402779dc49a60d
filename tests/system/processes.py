"""What runs on this machine, read from /proc, and what a process that is started from a test finds."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def living(group: int) -> list[int]:
    """The processes of a group; a zombie is none."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(of) == group and state != "Z":
                found.append(int(folder.name))
    return found


def gone(group: int, within: float) -> bool:
    """Whether no process is left of a group, `within` seconds from now at the latest."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not living(group):
            return True
        time.sleep(0.1)
    return False


def children(parent: int, word: str) -> list[int]:
    """The children of a process whose command line has a word."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            of = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if of == parent and word in (folder / "cmdline").read_text():
                found.append(int(folder.name))
    return found


def environment(**more: str) -> dict[str, str]:
    """Of a process that is started from here: without what vLLM, in this one, has left for processes of its own."""
    left = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    kept = {name: value for name, value in os.environ.items() if name not in left}
    if "PYTHONPATH" in kept and "PYTHONPATH" in more:
        more["PYTHONPATH"] += os.pathsep + kept["PYTHONPATH"]
    return {**kept, "OMP_NUM_THREADS": "1", **more}
