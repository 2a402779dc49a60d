"""What all tests share: one hypothesis profile, the same examples in every run; and the command line, as a function.

Nothing of the package is imported here: its types are to be checked, by a hook that comes later.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from ground import catalogue

settings.register_profile(
    "posttrain",
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
settings.load_profile("posttrain")


def pytest_collection_finish() -> None:
    """What has been imported stays: accelerate collects garbage at the start of each training, by looking at all there is.
    Where that is done so often, Python does it rarely by itself.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 50)


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """vLLM, in this process, has all looked at again when it ends: half a second for each training that comes after it."""
    if "vllm" in sys.modules and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """Extensions that watch for leaks see all that they made again."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def made_commands() -> Callable[[Any], Any]:
    """What typer makes of the command line, made once: it takes as long as a short run."""
    from typer.main import get_command

    return cache(get_command)


@pytest.fixture
def posttrain(
    made_commands: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in an empty folder: exit code, stdout, stderr."""
    from posttrain.cli import app

    monkeypatch.setattr("typer.main.get_command", made_commands)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["posttrain", *arguments])
        capsys.readouterr()
        try:
            app.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """The folder of a real model or tokenizer, by its name in `ground.catalogue`.

    Where POSTTRAIN_REAL_MODELS is set, as `.ci/run` does, one that was not made is a failure; elsewhere the test is skipped.
    """

    def folder(name: str) -> Path:
        if (found := catalogue.finished(name)) is not None:
            return found
        lacking = f"no {name} in {catalogue.root()}: `make real-models` makes it"
        if name not in catalogue.MORE and "POSTTRAIN_REAL_MODELS" in os.environ:
            pytest.fail(lacking)
        pytest.skip(f"{lacking}, with REAL_MODELS_MORE=1" if name in catalogue.MORE else lacking)

    return folder
