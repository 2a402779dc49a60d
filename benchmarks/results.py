"""A result as one line of JSON, and where results lie. Nothing is imported here that a table could not be made without."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CPU_RESULTS = ROOT / "benchmarks/results/cpu.jsonl"
GPU_RESULTS = ROOT / "benchmarks/results/gpu.jsonl"
Key = tuple[str, str]
PACKAGES = ("posttrain", "torch", "transformers", "trl")


@dataclass(frozen=True)
class Result:
    """One implementation of one case.

    run: which of several in a row. wall, user, system: seconds by the clock, of the processor outside the kernel and in it,
    the least of `rounds`; None where parity failed, or nothing is timed. ratio, ratio_wall: its cost by that of `against`,
    outside the kernel and by the clock. peak_bytes: memory that a step takes above what was held before it; peak_ratio: by
    that of `against`. faults: pages that a step touches for the first time once it is warm; kernels: operations that it
    dispatches, forward and backward, views and empty memory left out. agrees: whether it computes what the others do, within
    `tolerance`; `difference` is the larger relative one, of what `compared` says. share: of the time of steps that is spent
    beside the parts that must be. figures: whatever else a case is made for, by name.
    """

    case: str
    implementation: str
    shape: dict[str, Any] = field(default_factory=dict[str, Any])
    run: int = 1
    wall: float | None = None
    user: float | None = None
    system: float | None = None
    rounds: int = 0
    against: str = ""
    ratio: float | None = None
    ratio_wall: float | None = None
    peak_bytes: int | None = None
    peak_ratio: float | None = None
    faults: int | None = None
    kernels: int | None = None
    loss: float | None = None
    gradient_norm: float | None = None
    agrees: bool | None = None
    difference: float | None = None
    tolerance: float | None = None
    compared: str = ""
    share: float | None = None
    shares: dict[str, float] = field(default_factory=dict[str, float])
    figures: dict[str, float] = field(default_factory=dict[str, float])
    note: str = ""
    machine: dict[str, Any] = field(default_factory=dict[str, Any])
    versions: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def key(self) -> Key:
        """Under which it is found."""
        return self.case, self.implementation


def write(results: Iterable[Result], path: Path) -> None:
    """Writes the lines of a file anew."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(_rounded(asdict(result))) + "\n" for result in results))


def read(path: Path) -> list[Result]:
    """What `write` wrote; keys that are not known, of another version, are passed over."""
    known = {each.name for each in fields(Result)}
    lines = path.read_text().splitlines() if path.exists() else []
    return [Result(**{name: value for name, value in json.loads(line).items() if name in known}) for line in lines]


def merged(old: Iterable[Result], new: Iterable[Result], *, beside: bool = False) -> list[Result]:
    """The new results, and of the old ones those of cases that were not run anew, in the old order.

    A case that was run anew is gone from later runs too: runs in a row are of one program. beside: only rows of the same
    implementation are replaced; the others of the case stay.
    """
    kept, fresh = list(old), list(new)
    order = list(dict.fromkeys(result.case for result in [*kept, *fresh]))

    def name(result: Result) -> Key:
        return (result.case, result.implementation if beside else "")

    since = {name(result): result.run for result in fresh}
    rows = [result for result in kept if result.run < since.get(name(result), result.run + 1)] + fresh
    return sorted(rows, key=lambda result: (result.run, order.index(result.case)))


def by_run(results: Iterable[Result]) -> list[dict[Key, Result]]:
    """The results of each run, by case and implementation."""
    runs: dict[int, dict[Key, Result]] = {}
    for result in results:
        runs.setdefault(result.run, {})[result.key] = result
    return [runs[number] for number in sorted(runs)]


def last(results: Iterable[Result]) -> list[Result]:
    """Of each case and implementation what the last run gave."""
    return list({result.key: result for result in results}.values())


def machine(threads: int, device: str = "") -> dict[str, Any]:
    """The processor's name, and how many threads torch has; the GPU's name, where one is measured."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    found = {"cpu": names[0] if names else platform.processor(), "threads": threads}
    return {**found, "gpu": device} if device else found


def versions() -> dict[str, str]:
    """Of Python and of the packages that are compared."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return value
