"""The command line in several processes: who starts them, who prints, and how an error is told. No second one is started."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from posttrain.cli import app as cli
from posttrain.distributed import launch
from posttrain.errors import Interrupted
from posttrain.execution import runner
from posttrain.execution.runner import RunResult
from recipes import Command, recipe


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """What would have been started; it would have ended with 5."""
    calls: list[tuple[list[str], int]] = []

    def record(arguments: list[str], processes: int) -> int:
        calls.append((list(arguments), processes))
        return 5

    monkeypatch.setattr(launch, "launch", record)
    return calls


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The processes that each recipe asked for which came to be run here."""
    calls: list[int] = []

    def record(recipe: Any, **_: Any) -> RunResult:
        calls.append(recipe.distributed.processes)
        return RunResult(Path("out"), {})

    monkeypatch.setattr(runner, "run", record)
    monkeypatch.setattr("posttrain.cli.commands.run.ended", lambda folder: [])  # nothing was written
    return calls


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, world: int = 2) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}.items():
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("asked", "options", "processes"), [(1, ["--processes", "3"], 3), (2, [], 2), (4, ["--processes", "2"], 2)]
)
def test_the_same_command_line_is_started_in_every_process(
    posttrain: Command, launched: Any, ran: list[int], tmp_path: Path, asked: int, options: list[str], processes: int
) -> None:
    arguments = ["run", recipe(distributed={"processes": asked}), *options, "--set", "seed=3"]
    assert posttrain(*arguments)[0] == 5
    assert launched == [(arguments, processes)] and ran == []
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(("asked", "options"), [(1, []), (2, ["--processes", "1"])])
def test_one_process_is_this_one(posttrain: Command, launched: Any, ran: list[int], asked: int, options: list[str]) -> None:
    assert posttrain("run", recipe(distributed={"processes": asked}), *options)[0] == 0
    assert (launched, ran) == ([], [1])


def test_a_bad_recipe_is_told_once_before_any_process_starts(posttrain: Command, launched: Any) -> None:
    code, out, err = posttrain("run", recipe(sede=1), "--processes", "2")
    assert (code, out) == (2, "") and err.count("error:") == 1 and "did you mean seed?" in err
    assert posttrain("run", recipe(), "--processes", "0")[0] == 2 and launched == []


def test_a_dry_run_starts_nothing_and_tells_how_many_there_would_be(posttrain: Command, launched: Any) -> None:
    code, out, err = posttrain("run", recipe(distributed={"mode": "fsdp2"}), "--processes", "2", "--dry-run")
    assert (code, err, launched) == (0, "", [])
    rows = {words[1]: words[3] for words in map(str.split, out.splitlines()) if len(words) == 5}
    assert (rows["processes"], rows["mode"]) == ("2", "fsdp2")


def test_without_several_a_plan_is_silent_about_them(posttrain: Command) -> None:
    assert "processes" not in posttrain("run", recipe(), "--dry-run")[1]


@pytest.mark.parametrize("asked", [1, 2])
def test_a_process_that_was_started_runs_and_starts_none(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, launched: Any, ran: list[int], asked: int
) -> None:
    as_rank(monkeypatch, 0)
    code, out, _ = posttrain("run", recipe(distributed={"processes": asked}))
    assert (code, launched, ran) == (0, [], [asked]) and "Run: " in out


def test_another_number_than_the_launchers_is_refused(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, launched: Any, ran: list[int]
) -> None:
    as_rank(monkeypatch, 0)
    code, _, err = posttrain("run", recipe(distributed={"processes": 4}))
    assert code == 2 and "4 are asked for, and the launcher has started 2" in err and launched == ran == []


def test_of_several_processes_the_first_prints(posttrain: Command, monkeypatch: pytest.MonkeyPatch, ran: list[int]) -> None:
    as_rank(monkeypatch, 1)
    assert posttrain("run", recipe()) == (0, "", "") and ran == [1]
    as_rank(monkeypatch, 0)
    assert "Run: " in posttrain("run", recipe())[1]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was waited; nothing really is."""
    seconds: list[float] = []
    monkeypatch.setattr("posttrain.cli.app.time.sleep", seconds.append)
    return seconds


@pytest.mark.parametrize(("rank", "told"), [(0, "error: "), (1, "error (rank 1): ")])
def test_an_error_of_another_process_is_told_later_and_says_whose_it_is(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, slept: list[float], rank: int, told: str
) -> None:
    as_rank(monkeypatch, rank)
    code, _, err = posttrain("run", recipe(sede=1))
    assert code == 2 and err.startswith(told) and sum(slept) == cli.PATIENCE * rank


@pytest.mark.parametrize("rank", [0, 1])
def test_an_unforeseen_error_lets_those_of_a_known_kind_be_told_first(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, slept: list[float], rank: int
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("connection closed by peer")

    as_rank(monkeypatch, rank)
    monkeypatch.setattr(runner, "run", fail)
    code, _, err = posttrain("run", recipe())
    assert code == 1 and "RuntimeError: connection closed by peer" in err and "Traceback" not in err
    assert sum(slept) == cli.PATIENCE * (1 + rank)


@pytest.mark.parametrize(("rank", "told"), [(0, "interrupted: SIGTERM"), (1, "")])
def test_a_signal_is_told_by_the_first_process_alone(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, slept: list[float], rank: int, told: str
) -> None:
    def be_ended(*_: Any, **__: Any) -> None:  # as the launcher ends a rank that still waits for the one that failed
        os.kill(os.getpid(), signal.SIGTERM)

    as_rank(monkeypatch, rank)
    monkeypatch.setattr(runner, "run", be_ended)
    code, out, err = posttrain("run", recipe())
    assert (code, sum(slept)) == (75, 0) and (err.startswith(told) if told else (out, err) == ("", ""))


def test_one_that_is_interrupted_with_the_first_lets_it_tell_and_end(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    def be_ended(*_: Any, **__: Any) -> None:
        raise Interrupted("SIGTERM: ended with checkpoint-3.", together=True)

    monkeypatch.setattr(runner, "run", be_ended)
    as_rank(monkeypatch, 1)
    assert posttrain("run", recipe()) == (75, "", "") and slept == [cli.PATIENCE]
    slept.clear()
    as_rank(monkeypatch, 0)
    code, _, err = posttrain("run", recipe())
    assert code == 75 and "ended with checkpoint-3." in err and sum(slept) == 0


def test_threads_that_wait_give_their_processors_away(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    posttrain("--version")
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    posttrain("--version")
    assert os.environ["GOMP_SPINCOUNT"] == "20000"
