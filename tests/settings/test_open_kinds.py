"""Members of a kind, of this package and of installed ones; and objects of the user's code, by path."""

from __future__ import annotations

import os
import pickle
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from posttrain.settings.base import Config
from posttrain.settings.doors import code, kinds
from posttrain.settings.doors.door import Door, check_call, installed
from posttrain.settings.doors.kinds import Kind
from posttrain.settings.faults import faults


class Shape(Config):
    name: str


class Round(Shape):
    """A circle."""

    name: Literal["round"] = "round"
    radius: float = 1.0


class Square(Shape):
    """A square."""

    name: Literal["square"] = "square"


class Own(Door, Shape):
    """One of yours."""

    name: Literal["function"] = "function"


class Theirs(Shape):
    """A triangle of theirs."""

    name: Literal["triangle"] = "triangle"
    side: float


def wrap(point: EntryPoint, brought: Any) -> type[Own]:
    if not callable(brought):
        raise ValueError(f"{point.value} is of no use")
    return installed(Own, point.name, point.value)


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> Kind[Shape]:
    values = {
        "triangle": f"{__name__}:Theirs",
        "hexagon": f"{__name__}:wrap",
        "three": f"{__name__}:Theirs",
        "number": "math:pi",
        "ruined": "not_there:x",
        "round": f"{__name__}:Theirs",
    }
    points = [
        EntryPoint(name, value, "tests.shapes") for name, value in [*values.items(), ("twice", "a:b"), ("twice", "c:d")]
    ]
    monkeypatch.setattr(kinds, "entry_points", lambda group: points if group == "tests.shapes" else [])
    return Kind("shape", group="tests.shapes", base=Shape, members=(Round, Square, Own), wrap=wrap)


def test_a_field_takes_members_of_both_and_writes_them_as_they_are_read(kind: Kind[Shape]) -> None:
    adapter: TypeAdapter[Shape] = TypeAdapter(kind.field)
    for values in ({"name": "round", "radius": 2.0}, {"name": "triangle", "side": 3.0}):
        made = adapter.validate_python(values)
        assert adapter.dump_python(made) == values and adapter.validate_python(made) is made
    brought = adapter.validate_python({"name": "hexagon", "options": {"a": 1}})
    assert isinstance(brought, Own) and brought.trusted and brought.path == f"{__name__}:wrap" and brought.label == "hexagon"
    assert adapter.validate_python(adapter.dump_python(brought)) == brought
    assert pickle.loads(pickle.dumps(brought)) == brought and installed(Own, "hexagon", brought.path) is type(brought)
    assert adapter.json_schema()["discriminator"]["mapping"].keys() == {"round", "square", "function"}


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "rund"}, "name: rund is unknown; did you mean round?"),
        ({"name": "ruined"}, "ruined (not_there:x) cannot be loaded: ModuleNotFoundError: No module named 'not_there'"),
        ({"name": "twice"}, "twice is brought by several packages: a:b, c:d"),
        ({"name": "three"}, "calls itself 'triangle', and its entry point 'three'"),
        ({"name": "number"}, "math:pi is of no use"),
        ({"name": "triangle"}, "side: is required"),
        ({"name": "triangle", "side": 1, "corner": 2}, "corner: unknown key; there are name, side"),
        ({"name": "hexagon", "path": "os:getcwd"}, f"path: input should be '{__name__}:wrap'"),
        ({}, "name: is required"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(kind: Kind[Shape], values: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind.field).validate_python(values)
    assert says in str(faults(caught.value)[0])


def test_what_is_installed_is_listed_and_the_broken_ones_say_why(kind: Kind[Shape]) -> None:
    found = {one.name: one for one in kind.installed()}
    assert found["triangle"].member is Theirs and found["hexagon"].member is not None
    assert [name for name, one in found.items() if one.member is None] == ["number", "round", "ruined", "three", "twice"]
    assert found["round"].fault == "posttrain has a shape of this name, which is taken instead"


PATHS = ["own.py:f", "a/b.py:Class", "package.module:f", "package.module.f", "/x/own.py:f"]


@pytest.mark.parametrize("path", PATHS)
def test_a_file_is_made_absolute_beside_the_recipe_and_a_module_stays(path: str) -> None:
    placed = code.placed(path, Path("/recipes"))
    expected = path if ".py" not in path or path.startswith("/") else f"/recipes/{path}"
    assert placed == expected and code.placed(placed, Path("/elsewhere")) == placed
    assert code.object_name(placed) == ("Class" if "Class" in path else "f")


@pytest.mark.parametrize("path", ["", "f", "own.py", "own.py:", "own.py:a.b", "a b:f", ":f", "1.f"])
def test_another_form_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"file\.py:object"):
        code.placed(path, None)


def test_objects_come_from_files_and_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "beside.py").write_text("value = 1\n")
    (tmp_path / "own.py").write_text("from beside import value\ndef f(): return value\n")
    found = code.load(f"{tmp_path}/own.py:f")
    assert found() == 1 and code.load(f"{tmp_path}/own.py:f") is found, "a file is read once"
    assert code.load("beside:value") == 1 and code.load("os.path.join") is os.path.join


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g = 1", "there is no such object; .*own.py has g"),
        ("1 / 0", "ZeroDivisionError"),
        ("f(", "SyntaxError"),
        (None, "FileNotFound"),
    ],
)
def test_an_object_that_cannot_be_had_says_why(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "own.py").write_text(text)
    with pytest.raises(ValueError, match=says):
        code.load(f"{tmp_path}/own.py:f")


def test_a_fingerprint_changes_with_the_file_and_is_a_version_of_a_package(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text("f = 1")
    first = code.fingerprint(f"{path}:f")
    assert code.fingerprint(f"{path}:g") == first
    path.write_text("f = 2")
    assert code.fingerprint(f"{path}:f") != first
    assert code.fingerprint("pytest:main") == f"pytest {pytest.__version__}"
    with pytest.raises(ValueError, match="No such file"):
        code.fingerprint(f"{tmp_path}/absent.py:f")


def test_options_must_be_the_functions() -> None:
    def f(a: int, b: int = 0) -> None: ...

    check_call("own.py:f", f, {"a": 1})
    for options, says in (({}, "missing a required argument: 'a'"), ({"a": 1, "c": 2}, "unexpected keyword argument 'c'")):
        with pytest.raises(ValueError, match=f"own.py:f: .*{says}"):
            check_call("own.py:f", f, options)
