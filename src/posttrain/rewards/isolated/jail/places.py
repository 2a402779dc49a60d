"""Where Python lies: all of the machine that a program in the jail can read."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
BESIDE = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom")


def interpreter() -> str:
    """The program that is Python, whatever environment this process runs in."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def readable() -> Sequence[str]:
    """Folders and files that it needs, none in another: itself, its library, and the system's."""
    own = [f"{sys.base_prefix}/{name}" for name in ("lib", "lib64")]
    there = [place for place in (*LIBRARIES, *own, interpreter(), *BESIDE) if os.path.exists(place)]
    found = list[str]()
    for place in sorted(there, key=len):
        if not any(Path(place).is_relative_to(other) for other in found):
            found.append(place)
    return found
