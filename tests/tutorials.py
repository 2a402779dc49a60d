"""The tutorials as what they are: files to be written and commands to be run, in their order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted([*(DOCS / "tutorials").glob("*.md"), DOCS / "install.md"])
MARKS = ("gpu", "docker", "by hand", "fails")
BLOCK = re.compile(
    r'(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<language>\w*)(?: title="(?P<title>[^"]*)")?\n(?P<text>.*?)```\n', re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of code. mark: why it is not run here, or that it fails; title: the file that it is."""

    page: str
    language: str
    text: str
    title: str | None
    mark: str | None

    @property
    def commands(self) -> list[str]:
        """Its lines, those that go on joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]

    @property
    def runs(self) -> bool:
        """Whether a test runs it, or writes it."""
        return self.mark in (None, "fails")


def blocks(page: Path) -> list[Block]:
    """Of a page, in order."""
    return [
        Block(page.stem, found["language"], found["text"], found["title"], found["mark"])
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
