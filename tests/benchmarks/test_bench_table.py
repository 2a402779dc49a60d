"""The tables of the benchmark, from lines that are made up: figures beside what they must be, misses and failures shown."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("results", "targets", "table")


@pytest.fixture(scope="module")
def bench() -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    sys.path.insert(0, str(BENCHMARKS))
    yield tuple(importlib.import_module(name) for name in MODULES)  # type: ignore[misc]
    sys.path.remove(str(BENCHMARKS))
    for name in MODULES:
        sys.modules.pop(name, None)


def rows(results: ModuleType, *given: dict[str, Any]) -> list[Any]:
    known = {"machine": {"cpu": "a processor", "threads": 2}, "versions": {"torch": "2.13.0"}}
    return [results.Result(**known, **each) for each in given]


def line(table: ModuleType, measured: list[Any], what: str, against: str) -> str:
    """The line of one target."""
    [found] = [text for text in table.figures(measured) if text.startswith(f"| {what} | {against} |")]
    return found


DPO, SFT = "DPO step, with the reference's forward", "SFT step, V = 8 k"


def test_a_figure_of_both_clocks_stands_beside_what_it_must_be(bench: Any) -> None:
    results, _, table = bench
    measured = rows(results, {"case": "dpo", "implementation": "TRL", "ratio": 3.64, "ratio_wall": 2.9, "agrees": True})
    assert line(table, measured, DPO, "TRL").endswith("| at least 3 × | 3.64 × | 2.90 × | met |")
    assert line(table, measured, SFT, "TRL").endswith("| not measured | not measured |  |")


def test_what_is_met_by_the_clock_alone_is_missed(bench: Any) -> None:
    results, _, table = bench
    measured = rows(
        results,
        {"case": "dpo", "implementation": "TRL", "ratio": 2.49, "ratio_wall": 3.5, "agrees": True},
        {"case": "share-grpo", "implementation": "ours", "share": 0.0712, "shares": {"forward": 0.9, "outside": 0.0712}},
        {"case": "sft-8k", "implementation": "TRL", "peak_ratio": 2.0, "agrees": True},
        {"case": "host", "implementation": "ours", "user": 3.21, "peak_bytes": 1_100_000_000},
        {"case": "head-32k", "implementation": "ours", "faults": 76_000},
    )
    assert line(table, measured, DPO, "TRL").endswith("| 2.49 × | 3.50 × | **missed** |")
    beside = line(table, measured, "time beside those, engine and rewards, GRPO", "the whole")
    assert beside.endswith("| at most 5 % | 7.1 % | **missed** |")
    assert line(table, measured, "peak memory, SFT step, V = 8 k", "TRL").endswith("| at least 3 × | 2.00 × | **missed** |")
    host = line(table, measured, "host's cost of 2,048 answers of up to 32 k tokens", "")
    assert host.endswith("| at most 3 s | 3.21 s | **missed** |")
    assert line(table, measured, "memory of the same, above the start", "").endswith("| at most 1.2 GB | 1.1 GB | met |")
    faults = line(table, measured, "page faults of a head's call, V = 32 k", "")
    assert faults.endswith("| at most 100 | 76,000 | **missed** |")
    assert "forward 90.0 %" in table.parts(measured)[0]


def test_of_several_runs_the_worst_stands_there_and_how_many_missed(bench: Any) -> None:
    results, _, table = bench
    of_runs = [(3.2, 3.9), (2.9, 4.1), (3.4, 3.8)]
    measured = rows(
        results,
        *(
            {"case": "dpo", "implementation": "TRL", "run": i + 1, "ratio": outside, "ratio_wall": wall, "agrees": True}
            for i, (outside, wall) in enumerate(of_runs)
        ),
        {"case": "sft-8k", "implementation": "TRL", "run": 2, "ratio": 5.5, "ratio_wall": 4.0, "agrees": True},
    )
    assert line(table, measured, DPO, "TRL").endswith("| 2.90 × | 3.80 × | **missed** in 1 of 3 runs |")
    assert line(table, measured, SFT, "TRL").endswith("| 5.50 × | 4.00 × | met |")
    assert table.where(measured)[0].startswith(
        "3 runs in a row, the worst of each figure. Measured on a processor, 2 threads"
    )


@pytest.mark.parametrize("failed", ["ours", "TRL"])
def test_a_row_without_parity_has_no_figure(bench: Any, failed: str) -> None:
    results, _, table = bench
    wrong = {"agrees": False, "difference": 0.5, "tolerance": 1e-4, "compared": "loss"}
    measured = rows(
        results,
        *(
            {"case": "dpo", "implementation": name, **(wrong if name == failed else {"wall": 1.0})}
            for name in ("TRL", "ours")
        ),
    )
    assert line(table, measured, DPO, "TRL").endswith("| parity failed | parity failed | **missed** |")
    assert "**parity failed**: loss differs by 5.0e-01, 1e-04 is allowed" in "\n".join(table.everything(measured))


def test_growth_is_held_to_the_bound_by_both_clocks(bench: Any) -> None:
    results, _, table = bench
    start = {"case": "prompt-64", "implementation": "ours", "wall": 1.0, "user": 2.0}
    growth = "growth of our cost, prompt 64 → 512"
    for wall, user, last in ((1.8, 4.2, "2.10 × | 1.80 × | met |"), (2.3, 4.2, "2.10 × | 2.30 × | **missed** |")):
        measured = rows(results, start, {"case": "grpo-512", "implementation": "ours", "wall": wall, "user": user})
        assert line(table, measured, growth, "itself").endswith(f"| at most 2.2 × | {last}")
    assert line(table, measured[:1], growth, "itself").endswith("| not measured | not measured |  |")


def test_a_curve_has_the_exponent_from_point_to_point(bench: Any) -> None:
    results, targets, table = bench
    drawn = targets.Curve("size", "a step", {10: "a", 20: "b"})
    measured = rows(
        results,
        {"case": "a", "implementation": "ours", "wall": 1.0},
        {"case": "b", "implementation": "ours", "wall": 4.0},
        {"case": "b", "implementation": "TRL", "wall": 8.0, "ratio": 2.0},
    )
    *_, first, second = table.curve(measured, drawn)
    assert first == "| 10 | – | 1.000 | – |  |  |"
    assert second == "| 20 | 8.000 | 4.000 | 2.00 × | – | size^2.00 |"


def test_only_what_stands_between_the_marks_changes(bench: Any) -> None:
    _, _, table = bench
    page = "before\n<!-- bench -->\nold\n<!-- /bench -->\nafter\n"
    assert table.between(page, "bench", ["new", "lines"]) == "before\n<!-- bench -->\nnew\nlines\n<!-- /bench -->\nafter\n"
    with pytest.raises(ValueError, match="is not in the page"):
        table.between("nothing", "bench", [])


def test_lines_are_read_as_they_were_written_and_cases_replaced(bench: Any, tmp_path: Path) -> None:
    results, _, _ = bench
    path = tmp_path / "made/cpu.jsonl"
    old = rows(
        results,
        {"case": "a", "implementation": "ours", "wall": 1.0},
        {"case": "b", "implementation": "ours", "shape": {"vocabulary": 8192}},
        {"case": "b", "implementation": "TRL"},
    )
    results.write(old, path)
    assert results.read(path) == old
    anew = rows(results, {"case": "a", "implementation": "ours", "wall": 2.0}, {"case": "c", "implementation": "ours"})
    assert [(row.case, row.wall) for row in results.merged(old, anew)] == [("a", 2.0), ("b", None), ("b", None), ("c", None)]
    third = rows(results, {"case": "b", "implementation": "ours", "run": 3, "wall": 3.0})
    assert results.merged(old, third) == [*old, *third]  # another run in a row
    again = rows(results, {"case": "b", "implementation": "ours", "wall": 1.0})
    assert results.merged([*old, *third], again) == [old[0], *again]  # runs that were of another program are gone
    other = rows(results, {"case": "b", "implementation": "TRL 1.0"})
    assert results.merged([*old, *third], other, beside=True) == [*old, *other, *third]
    assert results.read(tmp_path / "none.jsonl") == []


def test_the_documents_have_the_marks_that_are_written_between(bench: Any) -> None:
    _, _, table = bench
    page = (BENCHMARKS.parent / "docs/benchmarks.md").read_text(encoding="utf-8")
    assert table.between(table.between(page, "bench-cpu", []), "bench-gpu", [])


def test_every_point_of_a_curve_and_every_target_names_a_case_that_is_run(bench: Any) -> None:
    _, targets, _ = bench
    told = (
        (BENCHMARKS / "steps.py").read_text() + (BENCHMARKS / "training.py").read_text() + (BENCHMARKS / "cpu.py").read_text()
    )
    named = {target.case for target in targets.TARGETS} | {case for each in targets.CURVES for case in each.cases.values()}
    for case in named:
        stem = case.rsplit("-", 1)[0]
        assert f'"{case}"' in told or f'f"{stem}-' in told, case
