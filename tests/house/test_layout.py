"""The house: imports point downward, no module goes round in a circle, and no folder or file is too large."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import posttrain

PACKAGE = Path(posttrain.__file__).parent
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "telling", "settings", "estimator"),
    ("algorithms", "data", "distributed"),
    ("model", "rewards"),
    ("rollout", "environments"),
    ("train",),
    ("recipe",),
    ("execution",),
    ("cli",),
)
"""From the ground up. A folder imports from floors below its own only; between folders of one floor there are no imports."""
FACES = ("", "__main__", "parts")
"""The package itself and what stands before it: they import from anywhere, and nothing in the house imports them."""
CATALOGUES = (
    "algorithms/on_demonstrations",
    "algorithms/on_preferences",
    "algorithms/on_labels",
    "algorithms/on_rollouts",
    "algorithms/hybrids",
    "algorithms/from_teachers",
    "data/transforms",
    "model/adapters",
    "model/merging/kinds",
    "rewards/kinds",
    "rewards/reading/calls",
    "environments/kinds",
    "train/schedules",
    "train/optimizers",
    "train/updates",
    "execution/measures",
    "cli/commands",
)
"""Folders whose files are members of one tuple each."""
TOP, FOLDER, CATALOGUE, LINES = 16, 12, 40, 300


def modules(root: Path) -> dict[str, Path]:
    """Every module below a package's folder by its name within the package; the package itself is the empty name."""
    found: dict[str, Path] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str], package: str = "posttrain") -> Iterator[tuple[int, str]]:
    """Line and name of every module of the package that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports in the package are absolute"
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix(f"{package}.") in known else str(node.module) for name in below]
        else:
            continue
        for name in names:
            if name == package or name.startswith(f"{package}."):
                yield node.lineno, name.removeprefix(package).removeprefix(".")


def floor_of(module: str, floors: tuple[tuple[str, ...], ...] = FLOORS) -> int | None:
    """The number of the floor that a module stands on."""
    return next((number for number, folders in enumerate(floors) if module.split(".")[0] in folders), None)


def wrong_imports(root: Path, floors: tuple[tuple[str, ...], ...] = FLOORS, package: str = "posttrain") -> list[str]:
    """Imports that point upward or sideways, into a face of the package, or from a folder that has no floor."""
    found = modules(root)
    wrong: list[str] = []
    for name, path in found.items():
        here = name.split(".")[0]
        if here in FACES:
            continue
        if (own := floor_of(name, floors)) is None:
            wrong.append(f"{name}: stands on no floor")
            continue
        for line, other in imports(path, set(found), package):
            there = floor_of(other, floors)
            if other.split(".")[0] != here and (there is None or there >= own):
                wrong.append(f"{path.relative_to(root)}:{line}: imports {other or package}")
    return wrong


def circles(root: Path, package: str = "posttrain") -> list[tuple[str, ...]]:
    """Modules that import each other, directly or by way of others."""
    found = modules(root)
    below = {name: {other for _, other in imports(path, set(found), package)} for name, path in found.items()}
    done: set[str] = set()
    circle: list[tuple[str, ...]] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            circle.append((*trail[trail.index(name) :], name))
        elif name not in done:
            for other in sorted(below.get(name, ())):
                visit(other, (*trail, name))
            done.add(name)

    for name in sorted(below):
        visit(name, ())
    return circle


def too_large(root: Path) -> list[str]:
    """Folders with more entries than they may have, and files with more lines."""
    folders = {path.parent for path in root.rglob("*.py")}
    folders |= {folder for inner in folders for folder in inner.parents if root in (folder, *folder.parents)}
    large: list[str] = []
    for folder in sorted(folders):
        name = folder.relative_to(root).as_posix()
        entries = {path.name for path in folder.iterdir()} - {"__init__.py", "__main__.py", "py.typed", "__pycache__"}
        if name in CATALOGUES:
            entries = {entry for entry in entries if not entry.startswith("_")}
        most = TOP if folder == root else CATALOGUE if name in CATALOGUES else FOLDER
        if len(entries) > most:
            large.append(f"{name}/: {len(entries)} entries, over {most}")
    for path in sorted(root.rglob("*.py")):
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > LINES:
            large.append(f"{path.relative_to(root)}: {lines} lines, over {LINES}")
    return large


def test_imports_point_downward() -> None:
    assert wrong_imports(PACKAGE) == []


def test_no_module_goes_round_in_a_circle() -> None:
    assert circles(PACKAGE) == []


def test_no_folder_and_no_file_is_too_large() -> None:
    assert too_large(PACKAGE) == []


def test_no_name_says_nothing() -> None:
    assert not [name for name in modules(PACKAGE) if name.rpartition(".")[2] in ("utils", "common", "helpers", "misc")]


def test_the_checks_find_what_they_look_for(tmp_path: Path) -> None:
    files = {
        "__init__.py": "from x.high.roof import a\n",
        "low/__init__.py": "",
        "low/ground.py": "def late():\n    from x.high import roof\n",
        "low/beside.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import x.other.one\n",
        "low/one.py": "from x.low import two\n",
        "low/two.py": "from x.low.three import a\n",
        "low/three.py": "import x.low.one\na = 1\n",
        "low/face.py": "import x\n",
        "other/one.py": "",
        "high/roof.py": "from x.low.ground import late\na = 1\n",
        "lost/file.py": "",
        **{f"low/many_{i}.py": "" for i in range(FOLDER)},
        "high/long.py": "\n" * (LINES + 1),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert sorted(wrong_imports(tmp_path, (("low", "other"), ("high",)), "x")) == [
        "lost.file: stands on no floor",
        "low/beside.py:3: imports other.one",
        "low/face.py:1: imports x",
        "low/ground.py:2: imports high.roof",
    ]
    assert ("low.one", "low.two", "low.three", "low.one") in circles(tmp_path, "x")
    assert too_large(tmp_path) == ["low/: 18 entries, over 12", "high/long.py: 301 lines, over 300"]
