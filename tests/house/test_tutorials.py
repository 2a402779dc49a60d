"""Every block of the tutorials is run by a test, or says why it is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tutorials import DOCS, MARKS, PAGES, blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_is_run_or_marked(page: Path) -> None:
    found = blocks(page)
    assert len(found) == page.read_text().count("\n```") // 2 and found
    for block in found:
        assert block.mark in (None, *MARKS), block
        assert block.title if block.language in ("yaml", "python", "json") else block.language == "bash", block
        if block.language == "bash" and block.runs:
            assert all(line.startswith("posttrain ") for line in block.commands), block
        if block.mark == "gpu":
            assert "GPU" in page.read_text()


def test_pages_that_name_each_other_are_there() -> None:
    named = {name for page in DOCS.rglob("*.md") for name in re.findall(r"`docs/([\w/]+\.md)`", page.read_text())}
    assert {name for name in named if not (DOCS / name).is_file()} == set()
