"""Objects of the user's code, by path: `file.py:object`, `package.module:object` or `package.module.object`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from importlib.metadata import packages_distributions, version
from pathlib import Path
from types import ModuleType
from typing import Any

FORM = re.compile(
    r"(?P<file>[^:]+\.py):(?P<of_file>[A-Za-z_]\w*)|(?P<module>[A-Za-z_]\w*(\.[A-Za-z_]\w*)*)[:.](?P<of>[A-Za-z_]\w*)"
)
EXPECTED = "file.py:object, package.module:object or package.module.object"


def placed(path: str, folder: Path | None) -> str:
    """The path with its file, if it is in one, made absolute; a relative one is in `folder`.

    Raises:
        ValueError: it has another form.
    """
    match = FORM.fullmatch(path)
    if match is None or path.endswith(".py"):
        raise ValueError(f"{path!r} names no object: {EXPECTED} is expected")
    if match["file"] is None:
        return path
    return f"{os.path.abspath((folder or Path()) / match['file'])}:{match['of_file']}"


def object_name(path: str) -> str:
    """What the object is called."""
    return re.split(r"[:.]", path)[-1]


def load(path: str) -> Any:
    """The object. Modules are looked for in installed packages, then in the working folder; beside a file, in its folder too.

    Raises:
        ValueError: it cannot be had; says why.
    """
    match = FORM.fullmatch(path)
    if match is None:
        raise ValueError(f"{path}: {EXPECTED} is expected")
    try:
        module = _module(match["module"]) if match["file"] is None else _file(Path(match["file"]))
    except Exception as error:  # code of the user's may fail in any way
        raise ValueError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, match["of"] or match["of_file"])
    except AttributeError:
        names = ", ".join(name for name in vars(module) if not name.startswith("_")) or "nothing"
        raise ValueError(f"{path}: there is no such object; {match['file'] or match['module']} has {names}"[:300]) from None


def fingerprint(path: str) -> str:
    """What tells one state of the code from another: the version of an installed package, or the digest of a file.

    Raises:
        ValueError: its file cannot be read.
    """
    match = FORM.fullmatch(path)
    assert match is not None
    if match["file"] is None:
        top = match["module"].partition(".")[0]
        if packages := packages_distributions().get(top):
            return f"{packages[0]} {version(packages[0])}"
        _look_in_the_working_folder()
        spec = importlib.util.find_spec(match["module"])
        file = Path(spec.origin) if spec is not None and spec.origin is not None else Path(match["module"])
    else:
        file = Path(match["file"])
    return digest(file)


def digest(file: Path) -> str:
    """Of what is in it.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from None


def _module(name: str) -> ModuleType:
    _look_in_the_working_folder()
    return importlib.import_module(name)


def _file(path: Path) -> ModuleType:
    name = f"{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses ask for the module of a class while it is made
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _look_in_the_working_folder() -> None:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
