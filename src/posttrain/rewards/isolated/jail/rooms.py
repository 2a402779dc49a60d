"""A process in namespaces of its own: it sees no process, no network, and no file but those that it is shown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from posttrain.rewards.isolated.jail.kernel import Kernel

NOBODY = 65534
WORK = "/work"
"""The folder of a program in its own root, empty at first and gone at its end."""
_PLACE = "/proc"  # over which the new root is mounted: a folder that is always there, and of which nothing is shown
_MOUNTS, _OTHERS = 0x00020000, 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000
"""Namespaces: of mounts; of users, processes, network, IPC, and names of the host."""
_READ_ONLY, _NO_SETUID, _NO_DEVICES, _NO_PROGRAMS, _REMOUNT, _BIND, _ALL, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_PIVOT = {"x86_64": 155, "aarch64": 41}
_SET_ATTRIBUTES, _HERE, _RECURSIVE = 442, -100, 0x8000
_DETACH = 2


def enter(kernel: Kernel, shown: Sequence[str], disk: int) -> None:
    """Takes this process out of the machine; its next child is the first process of its namespace.

    Args:
        kernel: asked for it.
        shown: folders and files of the machine that stay, to be read.
        disk: MiB that WORK can hold.

    Raises:
        OSError: the kernel, or who rules it, does not allow it.
    """
    is_root, user, group = os.geteuid() == 0, os.geteuid(), os.getegid()
    if is_root:  # who may read what nobody may: mounts first
        kernel.ask("unshare", _MOUNTS)
    else:
        kernel.ask("unshare", _MOUNTS | _OTHERS)
        for name, text in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {user} 1"), ("gid_map", f"{NOBODY} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    _mount(kernel, None, "/", _ALL | _PRIVATE)
    _mount(kernel, "tmpfs", _PLACE, _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
    for one in shown:
        _show(kernel, one, _PLACE)
    os.mkdir(_PLACE + WORK)
    _mount(kernel, "tmpfs", _PLACE + WORK, _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS, f"size={disk}m,nr_inodes=4096,mode=1777")
    os.chdir(_PLACE)
    kernel.ask("syscall", _PIVOT[platform.machine()], b".", b".")
    kernel.ask("umount2", b".", _DETACH)
    os.chdir("/")
    _mount(kernel, None, "/", _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | _NO_DEVICES)
    if is_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        kernel.ask("unshare", _OTHERS)


def _show(kernel: Kernel, one: str, root: str) -> None:
    there = root + one
    os.makedirs(os.path.dirname(there), exist_ok=True)
    if os.path.islink(one):
        os.symlink(os.readlink(one), there)
        return
    if os.path.isdir(one):
        os.mkdir(there)
    else:
        os.close(os.open(there, os.O_CREAT | os.O_WRONLY))
    _mount(kernel, one, there, _BIND | _ALL)
    read_only = (_READ_ONLY | _NO_SETUID).to_bytes(8, "little") + bytes(24)
    try:
        kernel.ask("syscall", _SET_ATTRIBUTES, _HERE, there.encode(), _RECURSIVE, read_only, len(read_only))
    except OSError:  # before Linux 5.12: with the flags that it has, which may not be taken off
        kept = os.statvfs(there).f_flag & (_READ_ONLY | _NO_SETUID | _NO_DEVICES | _NO_PROGRAMS)
        _mount(kernel, None, there, _REMOUNT | _BIND | _READ_ONLY | _NO_SETUID | kept)


def _mount(kernel: Kernel, what: str | None, where: str, flags: int, options: str = "") -> None:
    kind = b"tmpfs" if what == "tmpfs" else None
    kernel.ask("mount", what and what.encode(), where.encode(), kind, flags, options.encode() or None)
