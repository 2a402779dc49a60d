"""The same command goes on: after a signal, with more steps, and not with another recipe, other data or another machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain import PostTrainer
from posttrain.execution.folder.lock import LOCK
from posttrain.execution.prepare import preparation
from posttrain.train.checkpoint import folders as checkpoints
from recipes import SCRATCH, Command, recipe, write

TRAINING = {"max_steps": 6, "rows_per_step": 4, "lr_scheduler_type": "constant", "save_every": 2, "save_total_limit": None}
ROWS = [{"prompt": f"{i} + 1 =", "completion": str(i + 1)} for i in range(16)]
FAKE = "hf_" + "AbCd1234" * 4


def made(**changes: Any) -> str:
    write(Path("rows.jsonl"), *ROWS)
    values = {"data": {"train": {"path": "rows.jsonl"}, "chat_template": False}, "training": TRAINING, **changes}
    return recipe(**values)


def final(folder: str = "out") -> bytes:
    return (Path(folder) / "final" / "model.safetensors").read_bytes()


def steps(folder: str = "out") -> list[dict[str, Any]]:
    lines = map(json.loads, (Path(folder) / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


@pytest.mark.parametrize(
    "by", [signal.SIGTERM, *(pytest.param(one, marks=pytest.mark.system) for one in (signal.SIGINT, signal.SIGUSR1))]
)
def test_a_signal_ends_with_75_and_the_same_command_goes_on(
    by: signal.Signals, posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert posttrain("run", made(), "--output-dir", "whole")[0] == 0
    honest = PostTrainer._backward

    def signalled(self: PostTrainer, model: Any, step: Any) -> Any:
        if self.state.global_step == 2 and self._interruption is not None and self._interruption.by is None:
            os.kill(os.getpid(), by)
        return honest(self, model, step)

    with monkeypatch.context() as patched:
        patched.setattr(PostTrainer, "_backward", signalled)
        code, _, err = posttrain("run", made())
    assert code == 75 and f"interrupted: {by.name}: ended with checkpoint-3. The same command goes on from it." in err
    assert sorted(path.name for path in Path("out").glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert not (Path("out") / LOCK).exists() and not (Path("out") / "final").exists()
    assert posttrain("run", made())[0] == 0
    assert final() == final("whole") and steps() == steps("whole")


def test_a_signal_before_training_leaves_nothing(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posttrain.execution.runner.prepare", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    code, _, err = posttrain("run", made())
    assert code == 75 and "interrupted: SIGTERM: ended." in err and not Path("out").exists()


def test_more_steps_go_on_from_the_last_checkpoint(posttrain: Command) -> None:
    assert posttrain("run", made(), "--output-dir", "whole", "--set", "training.max_steps=10")[0] == 0
    assert posttrain("run", made())[0] == 0
    code, out, _ = posttrain("run", made(), "--set", "training.max_steps=10", "--set", "training.logging_steps=3")
    assert code == 0 and "nothing was done" not in out
    assert final() == final("whole") and steps() == steps("whole")
    code, out, _ = posttrain("run", made(), "--set", "training.max_steps=10")
    assert code == 0 and "is finished; nothing was done" in out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["training.max_steps=5"], "training.max_steps: 6 then, 5 now"),
        (["training.learning_rate=0.5"], "training.learning_rate: "),
        (["training.max_steps=9", "seed=3"], "seed: 0 then, 3 now"),
    ],
)
def test_all_else_is_refused_with_the_difference(changes: list[str], says: str, posttrain: Command) -> None:
    assert posttrain("run", made())[0] == 0
    code, _, err = posttrain("run", made(), *(word for change in changes for word in ("--set", change)))
    assert code == 8 and says in err and final()


def test_a_finished_run_without_checkpoints_cannot_be_longer(posttrain: Command) -> None:
    training = {**TRAINING, "save_every": 0}
    assert posttrain("run", made(training=training))[0] == 0
    before = final()
    code, _, err = posttrain("run", made(training={**training, "max_steps": 9}))
    assert code == 8 and "has kept no checkpoint" in err and final() == before


def test_a_run_that_did_not_fit_goes_on_in_smaller_micro_batches(posttrain: Command) -> None:
    assert posttrain("run", made())[0] == 0
    shutil.rmtree("out/final")
    code, _, _ = posttrain("run", made(), "--set", "training.micro_batch_tokens=40", "--set", "training.max_steps=8")
    assert code == 0 and len(steps()) == 8 and final()


def rewrite_manifest(checkpoint: Path, **facts: Any) -> None:
    manifest = checkpoint / checkpoints.MANIFEST
    described = {**json.loads(manifest.read_text()), **facts}
    del described["sha256"]
    manifest.write_text(json.dumps({**described, "sha256": checkpoints._seal(described)}))


def test_a_checkpoint_of_another_format_is_not_used(posttrain: Command) -> None:
    assert posttrain("run", made())[0] == 0
    shutil.rmtree("out/final")
    for checkpoint in Path("out").glob("checkpoint-*"):
        rewrite_manifest(checkpoint, format=99)
    code, _, err = posttrain("run", made())
    assert code == 8 and "its format is 99, and this version reads 1" in err


def test_changed_data_and_another_number_of_processes_are_refused(posttrain: Command) -> None:
    assert posttrain("run", made())[0] == 0
    shutil.rmtree("out/final")
    path = made()
    write(Path("rows.jsonl"), *ROWS[:-1], {**ROWS[-1], "completion": "17"})
    code, _, err = posttrain("run", path)
    assert code == 8 and "was trained on other data: data.train changed since" in err
    rewrite_manifest(Path("out/checkpoint-6"), processes=2)
    code, _, err = posttrain("run", made())
    assert code == 8 and "was written by 2 processes, and this run has 1" in err
    rewrite_manifest(Path("out/checkpoint-6"), processes=1)
    assert posttrain("run", made())[0] == 0


def test_a_second_run_in_the_folder_is_refused(posttrain: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, codes = preparation.prepare, list[int]()

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr("posttrain.execution.runner.prepare", honest)
            codes.append(posttrain("run", made())[0])
        return honest(*arguments, **options)

    monkeypatch.setattr("posttrain.execution.runner.prepare", meanwhile)
    assert posttrain("run", made())[0] == 0 and codes == [8]


def test_secrets_are_not_written(posttrain: Command) -> None:
    training = {**TRAINING, "extra": {"hub_token": "very-secret", "run_name": FAKE}}
    path = made(training=training, model=SCRATCH)
    assert posttrain("run", path)[0] == 0
    for file in Path("out").rglob("*"):
        if file.is_file():
            assert b"very-secret" not in file.read_bytes() and FAKE.encode() not in file.read_bytes(), file
    assert yaml.safe_load(Path("out/recipe.yaml").read_text())["training"]["extra"]["hub_token"] == "[hidden]"
    assert posttrain("run", path)[0] == 0
    code, _, err = posttrain("run", recipe(output_dir=f"out/{FAKE}/recipe.yaml", data={"train": {"path": FAKE}}))
    assert code and FAKE not in err
