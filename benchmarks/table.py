"""`make bench-table`: the tables of README.md and docs/benchmarks.md from the lines of benchmarks/results.

README.md gets the figures that must be shown, between `<!-- bench -->` and `<!-- /bench -->`. docs/benchmarks.md gets these,
the curves and every row, between `<!-- bench-cpu -->` and `<!-- /bench-cpu -->`; what a GPU gave between `<!-- bench-gpu -->`
and `<!-- /bench-gpu -->`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from results import CPU_RESULTS, GPU_RESULTS, ROOT, Result, read
from targets import CURVES, TARGETS, Curve, Target

MISSED, ABSENT = "**missed**", "not measured"
Key = tuple[str, str]


def figures(results: Sequence[Result], targets: Sequence[Target] = TARGETS) -> list[str]:
    """The table of the figures that must be shown: what must be, what was reached, and whether that is enough."""
    found = _by_key(results)
    lines = ["| case | against | must be | reached | |", "|---|---|---|---|---|"]
    for target in targets:
        figure = target.reached(found)
        failed = _parity_failed(target, found)
        reached = "parity failed" if failed else ABSENT if figure is None else _figure(target, figure)
        verdict = MISSED if failed or (figure is not None and not target.is_met(figure)) else "" if figure is None else "met"
        lines.append(f"| {target.what} | {_against(target)} | {_bound(target)} | {reached} | {verdict} |")
    return lines


def where(results: Sequence[Result]) -> list[str]:
    """A sentence: on what machine, with which versions."""
    machines = {str(result.machine): result.machine for result in results if result.machine}
    versions = {str(result.versions): result.versions for result in results if result.versions}
    told = [f"{m.get('gpu') or m['cpu']}, {m['threads']} threads" for m in machines.values()]
    used = [", ".join(f"{name} {version}" for name, version in v.items()) for v in versions.values()]
    return [f"Measured on {' and '.join(told)}; {' and '.join(used)}."] if told else ["Nothing has been measured yet."]


def curve(results: Sequence[Result], drawn: Curve) -> list[str]:
    """Seconds of TRL and of ours against a size, and the exponent of size by which each grows from the point before."""
    found = _by_key(results)
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


def everything(results: Sequence[Result]) -> list[str]:
    """Every row, as it was measured."""
    lines = [
        "| case | implementation | wall, s | processor, s | cost by ours | peak, MB | by ours | loss | gradient norm | |",
        "|" + "---|" * 10,
    ]
    for row in results:
        if row.share is None:
            lines.append("| " + " | ".join(_row_cells(row)) + " |")
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
    for drawn in CURVES:
        lines += [*curve(results, drawn), ""]
    shares = parts(results)
    lines += ["## Where the time of our trainings goes", "", *(shares or ["Not measured yet."]), ""]
    return [*lines, "## Every row", "", *everything(results)]


def of_gpu(results: Sequence[Result]) -> list[str]:
    """What docs/benchmarks.md shows of a GPU."""
    if not results:
        return ["No GPU has been measured yet: `benchmarks/gpu.py` has only been rehearsed on a CPU, with tiny shapes."]
    return [*where(results), "", *everything(results)]


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


def _by_key(results: Sequence[Result]) -> dict[Key, Result]:
    return {result.key: result for result in results}


def _parity_failed(target: Target, found: Mapping[Key, Result]) -> bool:
    rows = [found.get((target.case, name)) for name in ("ours", target.against)]
    return any(row is not None and row.agrees is False for row in rows)


def _against(target: Target) -> str:
    return {"growth": "itself", "share": "the whole"}.get(target.kind, target.against)


def _bound(target: Target) -> str:
    if target.kind == "share":
        return f"below {100 * target.bound:.0f} %"
    if not target.is_least:
        return f"below {target.bound:g} ×"
    return f"{target.bound:.2g} ×"


def _figure(target: Target, figure: float) -> str:
    return f"{100 * figure:.1f} %" if target.kind == "share" else f"{figure:.2f} ×"


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
        "–" if row.cpu is None else f"{row.cpu:.3f}",
        "" if row.ratio is None else _times(row.ratio),
        peak,
        "" if row.peak_ratio is None else _times(row.peak_ratio),
        "" if row.loss is None else f"{row.loss:.6g}",
        "" if row.gradient_norm is None else f"{row.gradient_norm:.6g}",
        told,
    ]


if __name__ == "__main__":
    main()
