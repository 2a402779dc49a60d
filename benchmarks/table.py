"""`make bench-table`: the tables of README.md and docs/benchmarks.md from the lines of benchmarks/results.

README.md gets the figures that must be shown, between `<!-- bench -->` and `<!-- /bench -->`. docs/benchmarks.md gets these,
the curves and every row, between `<!-- bench-cpu -->` and `<!-- /bench-cpu -->`; what a GPU gave between `<!-- bench-gpu -->`
and `<!-- /bench-gpu -->`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from results import CPU_RESULTS, GPU_RESULTS, ROOT, Result, by_run, last, read
from targets import CURVES, GPU_TARGETS, TARGETS, TIMES, Curve, Target, Verdict, amount, bound, verdicts

MISSED = "**missed**"


def figures(results: Sequence[Result], targets: Sequence[Target] = TARGETS) -> list[str]:
    """The tables of the figures that must be shown: of time by both clocks, and all others.

    Of several runs each has the worst figure, and how many of them missed it.
    """
    judged = verdicts(results, targets)
    lines = ["| case | against | must be | outside the kernel | by the clock | |", "|---|---|---|---|---|---|"]
    lines += [_verdict_line(one) for one in judged if one.target.kind in TIMES]
    lines += ["", "| case | against | must be | reached | |", "|---|---|---|---|---|"]
    return lines + [_verdict_line(one) for one in judged if one.target.kind not in TIMES]


def where(results: Sequence[Result]) -> list[str]:
    """A sentence: on what machine, with which versions."""
    machines = {str(result.machine): result.machine for result in results if result.machine}
    versions = {str(result.versions): result.versions for result in results if result.versions}
    told = [f"{m.get('gpu') or m['cpu']}, {m['threads']} threads" for m in machines.values()]
    used = [", ".join(f"{name} {version}" for name, version in v.items()) for v in versions.values()]
    if not told:
        return ["Nothing has been measured yet."]
    runs = len(by_run(results))
    many = f"{runs} runs in a row, the worst of each figure" if runs > 1 else "One run"
    return [f"{many}. Measured on {' and '.join(told)}; {' and '.join(used)}."]


def curve(results: Sequence[Result], drawn: Curve) -> list[str]:
    """Seconds of TRL and of ours against a size, and the exponent of size by which each grows from the point before."""
    found = {result.key: result for result in results}
    points = [(size, found.get((case, "TRL")), found.get((case, "ours"))) for size, case in drawn.cases.items()]
    lines = [
        f"{drawn.explained}:",
        "",
        f"| {drawn.axis} | TRL, s | ours, s | ratio | TRL grows as | ours grows as |",
        "|---|---|---|---|---|---|",
    ]
    before: tuple[int, Result | None, Result | None] | None = None
    for size, theirs, ours in points:
        cells = [_seconds(theirs), _seconds(ours), _times(theirs.ratio if theirs else None)]
        grown = [_exponent(before, (size, theirs, ours), side) for side in (1, 2)]
        lines.append(f"| {size} | {' | '.join(cells + grown)} |")
        before = (size, theirs, ours)
    return lines


COLUMNS = (
    "case",
    "implementation",
    "wall, s",
    "outside the kernel, s",
    "in it, s",
    "cost by ours outside the kernel",
    "by the clock",
    "peak, MB",
    "by ours",
    "faults",
    "operations",
    "loss",
    "gradient norm",
    "",
)


def everything(results: Sequence[Result]) -> list[str]:
    """Every row, as it was measured; where they are from several devices, with its own."""
    devices = [str((row.machine or {}).get("gpu") or "") for row in results]
    several = len(set(devices)) > 1
    columns = [*COLUMNS, "device"] if several else [*COLUMNS]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for row, device in zip(results, devices, strict=True):
        if row.share is None:
            lines.append(f"| {' | '.join([*_row_cells(row), *([device] if several else [])])} |")
    return lines


def parts(results: Sequence[Result]) -> list[str]:
    """Where the time of our trainings goes."""
    lines: list[str] = []
    for row in results:
        if row.share is not None:
            told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in row.shares.items())
            lines.append(f"- `{row.case}`: {told}")
    return lines


def between(page: str, mark: str, lines: Iterable[str]) -> str:
    """The page with these lines between its marks.

    Raises:
        ValueError: the page does not have both marks, in that order.
    """
    opening, closing = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    start, end = page.find(opening), page.find(closing)
    if start < 0 or end < start:
        raise ValueError(f"{opening} … {closing} is not in the page")
    return page[: start + len(opening)] + "\n" + "\n".join(lines) + "\n" + page[end:]


def short(results: Sequence[Result]) -> list[str]:
    """What the README shows."""
    return [*figures(results), "", *where(results)]


def long(results: Sequence[Result]) -> list[str]:
    """What docs/benchmarks.md shows of a CPU."""
    lines = ["## Figures", "", *short(results), "", "## Curves", ""]
    shown = last(results)
    for drawn in CURVES:
        lines += [*curve(shown, drawn), ""]
    shares = parts(shown)
    lines += ["## Where the time of our trainings goes", "", *(shares or ["Not measured yet."]), ""]
    return [*lines, "## Every row", "", *everything(shown)]


def of_gpu(results: Sequence[Result]) -> list[str]:
    """What docs/benchmarks.md shows of a GPU."""
    if not results:
        return ["No GPU has been measured yet: `benchmarks/gpu.py` has only been rehearsed on a CPU, with tiny shapes."]
    return [*figures(results, GPU_TARGETS), "", *where(results), "", *everything(last(results))]


def main() -> None:
    """Writes both pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", type=Path, default=CPU_RESULTS)
    parser.add_argument("--gpu", type=Path, default=GPU_RESULTS)
    options = parser.parse_args()
    cpu, gpu = read(options.cpu), read(options.gpu)
    for path, marked in (
        (ROOT / "README.md", {"bench": short(cpu)}),
        (ROOT / "docs/benchmarks.md", {"bench-cpu": long(cpu), "bench-gpu": of_gpu(gpu)}),
    ):
        page = path.read_text(encoding="utf-8")
        for mark, lines in marked.items():
            page = between(page, mark, lines)
        path.write_text(page, encoding="utf-8")


def _verdict_line(verdict: Verdict) -> str:
    target = verdict.target
    against = {"growth": "itself", "share": "the whole", "figure": ""}.get(target.kind, target.against)
    reached = [verdict.outside, *([verdict.by_clock] if target.kind in TIMES else [])]
    cells = ["parity failed" if verdict.parity_failed else amount(target, figure) for figure in reached]
    return "| " + " | ".join([target.what, against, bound(target), *cells, _word(verdict)]) + " |"


def _word(verdict: Verdict) -> str:
    if not verdict.runs:
        return ""
    if not verdict.missed:
        return "met"
    return MISSED if verdict.runs == 1 else f"{MISSED} in {verdict.missed} of {verdict.runs} runs"


def _seconds(row: Result | None) -> str:
    return "–" if row is None or row.wall is None else f"{row.wall:.3f}"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} ×"


def _exponent(
    before: tuple[int, Result | None, Result | None] | None, now: tuple[int, Result | None, Result | None], side: int
) -> str:
    if before is None:
        return ""
    small, large = before[side], now[side]
    assert not isinstance(small, int) and not isinstance(large, int)
    if small is None or large is None or not small.wall or not large.wall:
        return "–"
    return f"size^{math.log(large.wall / small.wall) / math.log(now[0] / before[0]):.2f}"


def _row_cells(row: Result) -> list[str]:
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}"
    told = row.note
    if row.agrees is False:
        told = f"**parity failed**: {row.compared} differs by {row.difference:.1e}, {row.tolerance:.0e} is allowed"
    return [
        f"`{row.case}`",
        row.implementation,
        _seconds(row),
        *("–" if value is None else f"{value:.3f}" for value in (row.user, row.system)),
        *("" if value is None else _times(value) for value in (row.ratio, row.ratio_wall)),
        peak,
        "" if row.peak_ratio is None else _times(row.peak_ratio),
        *("" if value is None else f"{value:,}" for value in (row.faults, row.kernels)),
        "" if row.loss is None else f"{row.loss:.6g}",
        "" if row.gradient_norm is None else f"{row.gradient_norm:.6g}",
        told,
    ]


if __name__ == "__main__":
    main()
