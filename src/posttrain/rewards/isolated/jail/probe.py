"""Tries each level with a program that tries to break out, and prints what is wrong with it, in JSON."""

from __future__ import annotations

import json
import os

from posttrain.rewards.isolated.jail import filter as calls
from posttrain.rewards.isolated.jail.kernel import MINIMUM, Bounds, Kernel
from posttrain.rewards.isolated.jail.levels import ESCAPES, LEVELS
from posttrain.rewards.isolated.jail.running import NotStarted, run, swept
from posttrain.rewards.isolated.jail.start import Bars, Level, bubblewrap


def tried(level: Level) -> str:
    """What this machine lacks for a level; nothing where it has it."""
    bars = Bars(level, Bounds(seconds=5))
    if level != "rlimits" and not calls.is_known():
        return "the system calls of this processor are not known"
    if level == "bubblewrap" and bubblewrap() is None:
        return "there is no program bwrap"
    if level == "landlock" and (version := bars.kernel.landlock()) < MINIMUM:
        return f"the kernel's Landlock has version {version}, and {MINIMUM} is needed (Linux 6.2)"
    try:
        ran = run(bars, ESCAPES.replace("OUTSIDE", str(os.getpid())) if level != "rlimits" else "print([])", "")
    except (NotStarted, OSError) as error:
        return f"it does not start: {error}"
    if (ran.ended, ran.code) != ("exit", 0):
        return f"a program does not run in it: {(ran.err or ran.ended).splitlines()[-1]}"
    return "" if ran.out.strip() == "[]" else f"a program got out of it: {ran.out.strip()[:100]}"


if __name__ == "__main__":
    Kernel().adopt()
    found = {level: tried(level) for level in LEVELS}
    swept()
    print(json.dumps(found))
