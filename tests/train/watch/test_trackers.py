"""What trackers get: completions and evaluations as tables, one run for one run, and nothing that is nobody's business."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from posttrain import PostTrainer
from posttrain.train.watch.tables import completions, evaluation

MakeTrainer = Callable[..., PostTrainer]
OURS = {"OUR_API_KEY": "correct-horse-battery"}
SAMPLE = {
    "where": "a.jsonl:1",
    "prompt": "1 + 1 =",
    "completion": "\ud800 2 | correct-horse-battery",
    "reward": 0.5,
    "rewards": {"right": 1.0, "short": 0.0},
    "graded": True,
    "tokens": 2,
    "finish": "stop",
}


@pytest.fixture
def tracked(make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PostTrainer]:
    """A run of two collections below a home folder, evaluated first and after training, as `posttrain run` does it."""
    for name, value in {"HOME": str(tmp_path), **OURS}.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB__DISABLE_META", "MLFLOW_RUN_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    def sampled(step: int) -> dict[str, float]:
        return {"eval/test/pass@1": 0.25, "eval/test/pass@1/low": 0.125, "eval/test/n": step}

    def train(tracker: str) -> PostTrainer:
        trainer = make_trainer(
            "grpo",
            options={"rollouts": 3},
            max_steps=2,
            logging_steps=1,
            report_to=[tracker],
            trainer_options={
                "sample_evaluation": lambda step: {
                    "eval/test/pass@1": 0.25,
                    "eval/test/pass@1/low": 0.125,
                    "eval/test/n": step,
                },
                "evaluate_first": True,
            },
        )
        vars(trainer.model)["config"]._name_or_path = f"{tmp_path}/base"
        with trainer.trackers.kept():
            trainer.train()
            trainer.evaluate()
        return trainer

    return train


def test_tensorboard_has_them_as_text(tracked: Callable[[str], PostTrainer], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = tracked("tensorboard")
    assert not list(tmp_path.glob("runs")), "an evaluation before the first step has not begun a log elsewhere"
    texts: dict[str, dict[int, str]] = {}
    for path in Path(str(trainer.args.output_dir)).glob("runs/*/events*"):
        events = EventAccumulator(str(path), size_guidance={"tensors": 0})
        events.Reload()
        for name in events.Tags()["tensors"]:
            for event in events.Tensors(name):
                texts.setdefault(name, {})[event.step] = event.tensor_proto.string_val[0].decode()
    assert sorted(texts["completions/text_summary"]) == [1, 2] and sorted(texts["evaluations/text_summary"]) == [0, 2]
    first = texts["completions/text_summary"][1].splitlines()
    assert first[0] == "| step | question | prompt | completion | reward | thirds | tokens | finish |" and len(first) > 4
    assert "| 2 | test | pass@1 | 0.25 | 0.125 |  |" in texts["evaluations/text_summary"][2]
    assert '"output_dir": "~/run"' in texts["args/text_summary"][0] and str(tmp_path) not in json.dumps(texts)


def test_wandb_has_them_as_tables_of_one_run(tracked: Callable[[str], PostTrainer], monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked("wandb")
    assert wandb.run is None, "another stage is a run of its own"
    [run] = Path("wandb").glob("offline-run-*")
    tables = [json.loads(path.read_text()) for path in run.glob("files/media/table/*.json")]
    rows = [row for table in tables if "completion" in table["columns"] for row in table["data"]]
    assert sorted({row[0] for row in rows}) == [1, 2]
    rows = [row for table in tables if "low" in table["columns"] for row in table["data"]]
    assert [2, "test", "pass@1", 0.25, 0.125, None] in rows and [0, "test", "n", 0, None, None] in rows
    assert not (run / "files" / "wandb-metadata.json").exists()


def test_trackio_has_them_as_tables_of_one_run(
    tracked: Callable[[str], PostTrainer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", tmp_path / "trackio")
    tracked("trackio")
    [path] = tmp_path.glob("trackio/*.db")
    with sqlite3.connect(path) as database:
        lines = database.execute("select run_name, metrics from metrics").fetchall()
        configs = str(database.execute("select config from configs").fetchall())
    assert len({name for name, _ in lines}) == 1, "what is evaluated after training belongs to the same run"
    logged = [json.loads(values) for _, values in lines]
    steps = [line["train/global_step"] for line in logged if "completions" in line]
    assert steps == [1, 2] and [line["train/global_step"] for line in logged if "evaluations" in line] == [0, 2]
    assert str(tmp_path) not in configs and "~/run" in configs


def test_mlflow_has_them_as_tables_of_one_run(tracked: Callable[[str], PostTrainer], tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    tracked("mlflow")
    client = mlflow.tracking.MlflowClient()
    [run] = client.search_runs([one.experiment_id for one in client.search_experiments()])
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.source.name"] == "posttrain"
    assert str(tmp_path) not in str(run.data.params) and run.data.params["output_dir"] == "~/run"
    rows = {name: mlflow.load_table(f"{name}.json", run_ids=[run.info.run_id]) for name in ("completions", "evaluations")}
    assert sorted(set(rows["completions"]["step"])) == [1, 2] and sorted(set(rows["evaluations"]["step"])) == [0, 2]


class Told(TrainerCallback):
    """A tracker of a kind that has tables, which keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
        self.events.append(f"begin in {args.to_dict()['output_dir']}")

    def on_log(self, *_: Any, logs: Any = None, **__: Any) -> None:
        self.events.append("evaluation" if any(name.startswith("eval_") for name in logs) else "step")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.events.append("end")


Told.__module__ = "transformers.integrations.integration_utils"


def test_the_end_of_training_is_kept_from_a_tracker_until_all_is_told(
    make_trainer: MakeTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tracker = Told()
    trainer = make_trainer(
        "sft", evaluate=True, max_steps=1, logging_steps=1, trainer_options={"callbacks": [tracker], "evaluate_first": True}
    )
    with trainer.trackers.kept():
        trainer.train()
        trainer.evaluate()
    assert tracker.events == ["begin in ~/run", "evaluation", "step", "step", "evaluation", "end"]
    assert trainer.args.to_dict()["output_dir"] == str(tmp_path / "run"), "others still see where it is"


def test_completions_are_sent_so_often_that_a_long_run_has_few_tables(make_trainer: MakeTrainer) -> None:
    trackers = make_trainer("sft", logging_steps=3).trackers
    shown: list[int] = []
    trackers._show = lambda table: shown.append(table.step)  # type: ignore[method-assign]
    for steps, expected in ((10, [1, 4, 7, 10]), (1000, [1, 21, 41])):
        shown.clear()
        trackers._every = 3
        trackers.on_start(0, steps)
        for step in range(1, min(steps, 60) + 1):
            trackers.on_rollouts(step, [SAMPLE])
        assert shown == expected


def test_rows_of_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*next(iter(OURS.items())))
    table = completions(3, [SAMPLE, {**SAMPLE, "graded": False, "rewards": {}}])
    assert table.columns == ["step", "question", "prompt", "completion", "reward", "right", "short", "tokens", "finish"]
    assert table.rows[0] == [3, "a.jsonl:1", "1 + 1 =", "\\ud800 2 | [hidden]", 0.5, 1.0, 0.0, 2, "stop"]
    assert table.rows[1][4:7] == [None, None, None]
    metrics = {"eval/a/b/pass@1": 0.5, "eval/a/b/pass@1/low": 0.4, "eval/a/b/pass@1/high": 0.6, "eval/a/b/n": 3, "loss": 1}
    found = evaluation(0, metrics).rows
    assert found == [[0, "a", "b/pass@1", 0.5, 0.4, 0.6], [0, "a", "b/n", 3, None, None]]
