"""An error that nobody foresaw is one line on the screen, and its traceback is in a file without secrets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli.unforeseen import Unforeseen, tracebacks_kept_in
from posttrain.errors import CheckpointError
from posttrain.train.loop import Loop
from recipes import Command, recipe

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"


def fail(*_: Any, **__: Any) -> None:
    raise AssertionError(f"never\nbefore {TOKEN} \x1b[2J")


def log_of(err: str) -> str:
    [path] = re.findall(r"(/\S+\.log)\)", err)
    return Path(path).read_text()


def test_in_the_folder_of_a_run_that_has_begun(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Loop, "_backward", fail)
    code, _, err = posttrain("run", recipe())
    assert (code, err.count("\n")) == (1, 1) and err.startswith("error: AssertionError: never before [hidden]")
    assert str(tmp_path / "out") in err and "\x1b" not in err
    assert "Traceback" in log_of(err) and "posttrain run recipe.yaml" in log_of(err) and TOKEN not in log_of(err)
    monkeypatch.undo()


def test_elsewhere_where_no_run_has_begun(posttrain: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import posttrain.execution.runner as runner

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(runner, "prepare", fail)
    code, _, err = posttrain("run", recipe())
    assert code == 1 and str(tmp_path / "temporary") in err and "Traceback" in log_of(err)
    assert not (tmp_path / "out").exists()


def test_what_is_known_passes_and_a_folder_that_cannot_be_written_hides_nothing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="full"), tracebacks_kept_in(tmp_path):
        raise CheckpointError("full")
    with pytest.raises(KeyError), tracebacks_kept_in(tmp_path / "absent"):
        raise KeyError("loss")
    assert not list(tmp_path.iterdir())
    with pytest.raises(Unforeseen, match="KeyError: 'loss'"), tracebacks_kept_in(tmp_path):
        raise KeyError("loss")
