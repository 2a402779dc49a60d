"""The files of a run: read whole or said to be broken, and what its steps have spent, however often they are asked."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from posttrain.errors import CheckpointError
from posttrain.execution.folder.run_folder import evaluations
from posttrain.execution.study.outcome import Outcome
from posttrain.settings.training import Budget
from posttrain.train.watch.records import JsonLines, RunFiles


def spent(step: int) -> dict[str, float]:
    return {"step/tokens": 10 + step, "step/seconds": 0.5, "loss": 1.0}


def test_a_torn_last_line_is_not_read_and_does_not_stay(tmp_path: Path) -> None:
    file = JsonLines(tmp_path / "a.jsonl")
    assert file.read() == []
    whole = [{"step": 1, "text": "é\u2028\x85\ud800"}, {"text": "of no step"}, {"step": 2}]
    for record in whole:
        file.append(record)
    with file.path.open("ab") as torn:
        torn.write('{"step": 3, "text": "é'.encode()[:-1])
    assert file.read() == whole and file.of_steps() == [whole[0], whole[2]]
    file.keep_until(1)
    file.append({"step": 2, "again": True})
    assert file.read() == [*whole[:2], {"step": 2, "again": True}]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_null_in_the_files_and_nan_for_who_reads_them(tmp_path: Path, value: float) -> None:
    files = RunFiles(tmp_path)
    files.on_evaluation(0, {"eval/test/loss": value, "eval/test/pass@1": 0.5})
    files.on_step(1, {**spent(1), "train/tokens": 8, "train/demonstrated": 0.0, "loss": value})
    files.on_evaluation(1, {"eval/test/loss": 2.0, "eval/test/pass@1": value})
    for name in ("eval", "metrics"):
        for line in (tmp_path / f"{name}.jsonl").read_text().splitlines():
            assert None in json.loads(line, parse_constant=lambda token: pytest.fail(f"{token} is no JSON")).values()
    first, last = evaluations(tmp_path)
    assert math.isnan(first["eval/test/loss"]) and first["eval/test/pass@1"] == 0.5
    assert math.isnan(last["eval/test/pass@1"]) and last["eval/test/loss"] == 2.0 and math.isnan(last["loss"])
    outcome = Outcome.of(tmp_path)
    assert math.isnan(outcome.before["eval/test/loss"]) and math.isnan(outcome.after["eval/test/pass@1"])
    assert [set(line) & {"eval/test/loss", "loss"} for line in files.lines_until(1)] == [set(), set(), {"eval/test/loss"}]


def test_nothing_is_made_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    JsonLines(tmp_path / "a.jsonl").keep_until(1)
    assert not list(tmp_path.iterdir())


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"step": 1}\n{"step": \n{"step": 3}\n')
    with pytest.raises(CheckpointError, match=r"a\.jsonl has a line that is no JSON: '\{\"step\": '\. Delete the line"):
        JsonLines(path).read()


def test_what_the_steps_have_spent_is_summed_once_and_read_anew_where_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    read = JsonLines.read
    monkeypatch.setattr(JsonLines, "read", lambda file: reads.append(file.path) or read(file))
    tokens, seconds = Budget(tokens=100), Budget(seconds=2.0)
    files = RunFiles(tmp_path)
    for step in range(1, 6):
        before = sum(10 + earlier for earlier in range(1, step))
        assert tokens.share(files.steps_until(step - 1)) == before / 100
        files.on_step(step, spent(step))
        assert tokens.share(files.steps_until(step)) == (before + 10 + step) / 100
    assert seconds.share(files.steps_until(5)) == 5 * 0.5 / 2 and len(reads) == 1
    again = RunFiles(tmp_path)
    again.resume_at(3)
    assert tokens.share(again.steps_until(3)) == (11 + 12 + 13) / 100
    again.on_step(4, spent(4))
    assert tokens.share(again.steps_until(4)) == (11 + 12 + 13 + 14) / 100
    assert tokens.share(again.steps_until(2)) == (11 + 12) / 100
