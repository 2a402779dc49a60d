"""Processor time, which is the same on a machine that is busy."""

from __future__ import annotations

import resource

import psutil


def used() -> float:
    """Seconds of it by the children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def used_by(pid: int) -> float:
    """Seconds of it by a process that has not."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system
