"""The tutorials, from their first block to their last, in an empty folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from recipes import Command
from tutorials import PAGES, blocks

pytestmark = pytest.mark.system
RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_a_tutorial_does_what_it_says(page: Path, posttrain: Command) -> None:
    for block in blocks(page):
        if block.title is not None:
            Path(block.title).write_text(block.text)
        elif block.runs:
            for line in block.commands:
                code, out, err = posttrain(*shlex.split(line)[1:])
                assert (code != 0) == (block.mark == "fails"), (line, out, err)
                assert code in (0, 2, 3), (line, err)
