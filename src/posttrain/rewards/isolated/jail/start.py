"""Starts a Python program behind bars of a level."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from posttrain.rewards.isolated.jail import filter as calls
from posttrain.rewards.isolated.jail.kernel import MIB, Bounds, Kernel, limit
from posttrain.rewards.isolated.jail.rooms import NOBODY, WORK, enter

Level = Literal["full", "bubblewrap", "landlock", "rlimits"]
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
BESIDE = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom")
_LAST = 4096  # descriptors above are never open
_ASIDE = 200  # where descriptors are kept while they change places


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


@dataclass(slots=True)
class Bars:
    """What is looked up once: the kernel, and where Python lies."""

    level: Level
    bounds: Bounds
    kernel: Kernel = field(default_factory=Kernel)
    python: str = field(default_factory=interpreter)
    source: str = field(default_factory=Path(__file__).with_name("guest.py").read_text)
    shown: Sequence[str] = field(default_factory=readable)


@dataclass(frozen=True, slots=True)
class Started:
    """The process that stands for a program: when it is killed, all of the program is. `failed` is read until its end: what
    comes is why the program was not started.
    """

    pid: int
    failed: int


def start(bars: Bars, does: str, files: Sequence[int]) -> Started:
    """Starts what `guest` does, with these descriptors as its 0, 1, 2 and so on."""
    told, tells = os.pipe()
    os.set_inheritable(tells, True)
    server = os.getpid()
    pid = os.fork()
    if pid:
        os.close(tells)
        return Started(pid, told)
    try:
        os.setsid()
        os.umask(0o022)
        _placed([*files, tells])
        os.set_inheritable(len(files), False)
        _become(bars, does, server)
    except BaseException as error:
        os.write(len(files), f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(125)


def _placed(files: Sequence[int]) -> None:
    """Makes these the only descriptors, from 0 on."""
    for place, file in enumerate(files):
        os.dup2(file, _ASIDE + place)
    for place in range(len(files)):
        os.dup2(_ASIDE + place, place)
    os.closerange(len(files), _LAST)


def _become(bars: Bars, does: str, server: int) -> NoReturn:
    kernel, level = bars.kernel, bars.level
    words = [bars.python, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", bars.source, does]
    home = {"full": WORK, "bubblewrap": WORK}.get(level, "/nowhere")
    variables = {"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "HOME": home, "TMPDIR": home, "PATH": "/nowhere"}
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            signal.signal(number, signal.SIG_DFL)
    kernel.same_addresses()
    kernel.die_with_parent()
    _orphans_end(os.getppid() != server)
    if level == "bubblewrap":
        limit(bars.bounds, threads=False)
        words = [*_bubblewrap(bars), *words]
        os.execve(words[0], words, variables)
    if level == "full":
        enter(kernel, bars.shown, bars.bounds.disk)
        kernel.die_with_parent()  # which a change of user has undone
        _orphans_end(os.getppid() != server)
        _handed_on(kernel)
        _handed_on(kernel)
        os.chdir(WORK)
    else:
        os.chdir("/")
    limit(bars.bounds, threads=level == "full")
    kernel.drop_powers()
    if level == "landlock" or (level == "full" and kernel.landlock()):
        kernel.rules(bars.shown, [WORK] if level == "full" else [])
    if level != "rlimits":
        calls.install(kernel.libc)
    os.execve(bars.python, words, variables)


def _orphans_end(orphaned: bool) -> None:
    """Who made this process has ended before the kernel was asked to kill it then."""
    if orphaned:
        os._exit(125)


def _handed_on(kernel: Kernel) -> None:
    """Goes on in a child, which ends with this process. This one only waits for it, and ends as it does."""
    own = os.pidfd_open(os.getpid())  # a child in a namespace of its own cannot know its parent by number
    pid = os.fork()
    if not pid:
        kernel.die_with_parent()
        _orphans_end(bool(select.select([own], [], [], 0)[0]))
        os.close(own)
        return
    os.closerange(0, _LAST)
    _, status = os.waitpid(pid, 0)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def bubblewrap() -> str | None:
    """Where the program bwrap is, if the machine has it."""
    return shutil.which("bwrap")


def _bubblewrap(bars: Bars) -> list[str]:
    """The words of a command before the one that it runs."""
    read, write = os.pipe()
    os.write(write, calls.program(None))
    os.close(write)
    os.set_inheritable(read, True)
    words = [bubblewrap() or "bwrap", "--unshare-all", "--die-with-parent", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    for one in bars.shown:
        link, device = os.path.islink(one), one.startswith("/dev/")
        words += ["--symlink", os.readlink(one), one] if link else ["--dev-bind" if device else "--ro-bind", one, one]
    words += ["--size", str(bars.bounds.disk * MIB), "--tmpfs", WORK, "--chdir", WORK, "--cap-drop", "ALL"]
    return [*words, "--seccomp", str(read), "--"]
