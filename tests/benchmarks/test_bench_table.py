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


def line(table: ModuleType, measured: list[Any], case: str, against: str, kind: str = "ratio") -> str:
    """The line of one target."""
    lines = table.figures(measured)[2:]
    [found] = [
        text
        for target, text in zip(table.TARGETS, lines, strict=True)
        if (target.case, target.against, target.kind) == (case, against, kind)
    ]
    return found


def test_a_figure_stands_beside_what_it_must_be(bench: Any) -> None:
    results, _, table = bench
    measured = rows(results, {"case": "dpo", "implementation": "TRL", "ratio": 3.64, "agrees": True})
    assert line(table, measured, "dpo", "TRL").endswith("| 3 × | 3.64 × | met |")
    assert "not measured" in line(table, measured, "sft-8k", "TRL")


def test_a_missed_figure_is_shown_as_missed(bench: Any) -> None:
    results, _, table = bench
    measured = rows(
        results,
        {"case": "dpo", "implementation": "TRL", "ratio": 2.49, "agrees": True},
        {"case": "share-grpo", "implementation": "ours", "share": 0.0712, "shares": {"forward": 0.9, "outside": 0.0712}},
        {"case": "sft-8k", "implementation": "TRL", "peak_ratio": 2.0, "agrees": True},
    )
    assert line(table, measured, "dpo", "TRL").endswith("| 2.49 × | **missed** |")
    assert line(table, measured, "share-grpo", "ours", "share").endswith("| below 5 % | 7.1 % | **missed** |")
    assert line(table, measured, "sft-8k", "TRL", "peak_ratio").endswith("| 3 × | 2.00 × | **missed** |")
    assert "forward 90.0 %" in table.parts(measured)[0]


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
    assert line(table, measured, "dpo", "TRL").endswith("| parity failed | **missed** |")
    assert "**parity failed**: loss differs by 5.0e-01, 1e-04 is allowed" in "\n".join(table.everything(measured))


def test_growth_is_of_the_clock_that_grew_more(bench: Any) -> None:
    results, _, table = bench
    measured = rows(
        results,
        {"case": "prompt-64", "implementation": "ours", "wall": 1.0, "cpu": 2.0},
        {"case": "grpo-512", "implementation": "ours", "wall": 1.8, "cpu": 4.2},
    )
    assert line(table, measured, "grpo-512", "ours", "growth").endswith("| itself | below 2.2 × | 2.10 × | met |")
    assert line(table, measured[:1], "grpo-512", "ours", "growth").endswith("| not measured |  |")


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
