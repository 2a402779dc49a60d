"""What the kernel is asked of a process that is about to run a program: no powers, limits, and Landlock's rules for files."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES = 64  # that a program may have open
MIB = 2**20
MINIMUM = 3  # of Landlock's versions: from it on files cannot be cut off
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # of rules: the same numbers on every machine
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_CHANGE = _WRITE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | 1 << 14
"""Write; remove folders and files; make folders, files and links; move; cut off."""
_KNOWN = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
_SINCE_5 = 0xFFFF
_SET_DEATH, _SET_REAPER, _NO_NEW_POWERS, _SECURE, _DROP = 1, 36, 38, 28, 24
_ROOT_IS_NOBODY = 0xEF  # and it stays so


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a program may take: seconds of the processor, MiB of address space and of files, and threads."""

    seconds: int = 2
    memory: int = 512
    disk: int = 16
    threads: int = 32


class Kernel:
    """The C library, whose failures are OSErrors. Made before a process is forked."""

    def __init__(self) -> None:
        self.libc = ctypes.CDLL(None, use_errno=True)

    def ask(self, name: str, *arguments: Any) -> int:
        """Calls a function.

        Raises:
            OSError: it gave -1.
        """
        given = int(getattr(self.libc, name)(*arguments))
        if given == -1:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")
        return given

    def die_with_parent(self) -> None:
        """Kills this process when the one that made it ends."""
        self.ask("prctl", _SET_DEATH, signal.SIGKILL, 0, 0, 0)

    def adopt(self) -> None:
        """Processes that are left behind become this one's children."""
        self.ask("prctl", _SET_REAPER, 1, 0, 0, 0)

    def drop_powers(self) -> None:
        """No program gives this process more rights than it has; and of those of the administrator none is left."""
        self.ask("prctl", _NO_NEW_POWERS, 1, 0, 0, 0)
        self.libc.prctl(_SECURE, _ROOT_IS_NOBODY, 0, 0, 0)  # refused to who has none to drop, as the next lines are
        for power in range(64):
            self.libc.prctl(_DROP, power, 0, 0, 0)
        header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        self.ask("capset", header, none)

    def landlock(self) -> int:
        """The version of Landlock; 0 where there is none."""
        return max(0, int(self.libc.syscall(_CREATE, None, 0, 1)))

    def rules(self, readable: Sequence[str], writable: Sequence[str] = ()) -> None:
        """From now on these may be read, and programs of them run; those may be written as well; and nothing else. Nothing is
        connected to, and nobody outside signalled, as far as this version of Landlock can say so.

        Raises:
            OSError: there is no Landlock, or a place cannot be opened.
        """
        version = self.landlock()
        known = _KNOWN.get(version, _SINCE_5)
        attributes = struct.pack("=QQQ", known, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
        rules = self.ask("syscall", _CREATE, attributes, len(attributes), 0)
        for places, allowed in ((readable, _EXECUTE | _READ | _LIST), (writable, _READ | _LIST | _CHANGE & known)):
            for place in places:
                opened = os.open(place, os.O_PATH | os.O_CLOEXEC)
                given = allowed if Path(place).is_dir() else allowed & (_EXECUTE | _READ | _WRITE)
                self.ask("syscall", _ADD, rules, 1, struct.pack("=Qi", given, opened), 0)
                os.close(opened)
        self.ask("syscall", _RESTRICT, rules, 0)
        os.close(rules)

    def same_addresses(self) -> None:
        """What the next program holds lies where it did the last time, if the kernel lets that be said."""
        self.libc.personality(0x0040000)


def limit(bounds: Bounds, *, threads: bool) -> None:
    """Sets the limits of this process.

    Args:
        bounds: what it may take.
        threads: those too; they are counted with all others of the user, unless they are in a namespace of their own.
    """
    limits = {
        resource.RLIMIT_AS: bounds.memory * MIB,
        resource.RLIMIT_FSIZE: bounds.disk * MIB,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        **({resource.RLIMIT_NPROC: bounds.threads} if threads else {}),
    }
    for which, most in limits.items():
        resource.setrlimit(which, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (bounds.seconds, bounds.seconds + 1))  # SIGXCPU, and SIGKILL to who ignores that
