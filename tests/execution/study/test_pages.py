"""The studies' pages have the tables that are made of the committed results, and say what the results allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.execution.study.config import load_study
from posttrain.execution.study.results import read_results
from posttrain.execution.study.table import tables

ROOT = Path(__file__).parents[3]
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.yaml") if path.with_suffix(".json").is_file())


@pytest.mark.parametrize("name", STUDIES)
def test_a_page_has_the_tables_of_the_committed_results(name: str) -> None:
    study, page = load_study(ROOT / f"studies/{name}.yaml"), (ROOT / f"docs/studies/{name}.md").read_text()
    outcomes = read_results(ROOT / f"studies/{name}.json")
    assert page.partition("## Figures\n\n")[2] == tables(study, outcomes)
    reported = {(start, algorithm, seed) for start in study.starts for algorithm in study.algorithms for seed in study.seeds}
    assert {(run.start, run.algorithm, run.seed) for run in outcomes} == reported
    assert len(study.seeds) >= 5 or page.startswith("# Pilot: ")


def test_there_are_pages() -> None:
    assert {"pairs", "weights", "teacher"} <= {*STUDIES}
