"""The levels of the jail, the strongest first, and which of them this machine has: that is tried, not looked up."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Literal, get_args

from posttrain.errors import SetupError
from posttrain.rewards.isolated.jail.kernel import Bounds
from posttrain.rewards.isolated.jail.start import Level

Asked = Literal["strongest", "full", "bubblewrap", "landlock", "rlimits"]
"""What a recipe may say."""
LEVELS: tuple[Level, ...] = get_args(Level)
ESCAPES = """
import ctypes, os, signal, socket
libc = ctypes.CDLL(None)
def tried(what):
    try:
        return what() not in (None, -1)
    except (OSError, PermissionError):
        return False
free = {
    "read": lambda: os.listdir("/etc") + os.listdir("/home"),
    "look": lambda: os.listdir("/proc/OUTSIDE"),
    "write": lambda: os.open("/tmp/escaped", os.O_CREAT | os.O_WRONLY),
    "change": lambda: os.chmod(os.__file__, 0o644) or 1,
    "fork": lambda: os.fork(),
    "signal": lambda: os.kill(OUTSIDE, 0) or 1,
    "connect": lambda: socket.socket(),
    "nest": lambda: libc.unshare(0x10000000),
    "mount": lambda: libc.mount(b"none", b"/", None, 1 << 18, None),
    "trace": lambda: libc.ptrace(0, 0, 0, 0),
}
print([name for name, what in free.items() if tried(what)])
"""
"""A program that prints by which of these ways it got out; OUTSIDE is the number of a process that it should not see."""
_unjailed = False
_DEADLINE = 60.0  # seconds for all of them


@cache
def offered() -> Mapping[str, str]:
    """Of each level what this machine lacks for it; nothing where a program was run behind its bars, and got nowhere."""
    if sys.platform != "linux":
        return dict.fromkeys(LEVELS, "it needs Linux")
    command = [sys.executable, "-P", "-m", "posttrain.rewards.isolated.jail.probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {level: done.stderr.strip()[-300:] for level in LEVELS}


def allow_unjailed() -> None:
    """From now on programs may run in this process's jails with limits alone, where its user has said so."""
    global _unjailed
    _unjailed = True


def level_of(asked: Asked) -> Level:
    """The level that is taken.

    Args:
        asked: one, or the strongest that there is. Limits alone are taken where they are asked for or there is nothing else,
            and that is allowed.

    Raises:
        SetupError: this machine does not have it, or it is no jail.
    """
    found = offered()
    there: list[Level] = [level for level in LEVELS[:-1] if not found[level]]
    if asked not in ("strongest", "rlimits", *there):
        raise SetupError(
            f"jail: {asked}: this machine does not have it: {found[asked]}. It has {', '.join(there) or 'none'}; leave the "
            "key out for the strongest."
        )
    for level in there if asked != "rlimits" else ():
        if asked in ("strongest", level):
            return level
    if found["rlimits"]:
        raise SetupError(f"Programs that a model wrote cannot be run here: {found['rlimits']}.")
    if not _unjailed:
        lacks = "; ".join(f"{level}: {found[level]}" for level in LEVELS[:-1] if found[level])
        raise SetupError(
            f"Programs that a model wrote would run with limits alone, and could read, write and send whatever you can. "
            f"{f'This machine has no jail ({lacks}). ' if asked == 'strongest' else ''}"
            "Who wants that all the same, on a machine that holds nothing, says --allow-unjailed-code."
        )
    return "rlimits"


def bounded(bounds: Bounds) -> str:
    """Bounds as an argument of a command."""
    return json.dumps({name: getattr(bounds, name) for name in ("seconds", "memory", "disk", "threads")})
