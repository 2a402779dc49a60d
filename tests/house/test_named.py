"""Files and targets that documents name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("[!L]*.md"))]
)
def test_files_that_documents_name_exist(document: str) -> None:
    named = re.findall(r"`((?:docs|tests|recipes|studies|src|benchmarks)/[\w./-]+)`", (ROOT / document).read_text())
    missing = [name for name in named if not (ROOT / name).exists() and not re.search("phi_sft|question|poly", name)]
    assert not missing


def test_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")), *ROOT.glob("docs/[!L]*.md")]
    named = {(page.name, target) for page in pages for target in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert len(named) > 10 and not [one for one in named if one[1] not in targets]
