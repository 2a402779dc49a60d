"""Every line of the package that asks for CUDA is on the list, with what runs it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

import posttrain
from gpu.cases import cases

PACKAGE = Path(posttrain.__file__).parent
ASKS = re.compile(r"""(?<!`)["']cuda["']|\bcuda\.\w|\bis_cuda\b""")
SAYS = re.compile(r"""^(#|device: )""")


def asking(root: Path) -> set[tuple[str, str]]:
    """Lines of code that ask for CUDA, by their file."""
    files = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.py")}
    lines = {(file, line.strip()) for file, text in files.items() for line in text.splitlines() if ASKS.search(line)}
    return {(file, line) for file, line in lines if not SAYS.match(line)}


def test_every_branch_is_listed_with_what_runs_it(tmp_path: Path) -> None:
    listed = yaml.safe_load((Path(__file__).parent / "branches.yaml").read_text())
    assert asking(PACKAGE) == {(one["file"], one["line"]) for one in listed}
    names = [case.name for case in cases()]
    assert [
        one for one in listed if one["by"] not in ("all", "nothing") and not any(one["by"] in name for name in names)
    ] == []
    (tmp_path / "new.py").write_text('if x.device.type == "cuda":\n    pass\n')
    assert asking(tmp_path) == {("new.py", 'if x.device.type == "cuda":')}
