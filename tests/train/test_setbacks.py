"""Memory that is full, and trackers that fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from posttrain import PostTrainer
from posttrain.distributed import ranks
from posttrain.errors import CheckpointError, SetupError
from tiny import parameters

MakeTrainer = Callable[..., PostTrainer]
GROUPS = {"options": {"rollouts": 4}, "rows_per_step": 8}


def room_for(trained: PostTrainer, tokens: int) -> list[int]:
    """Lets the device hold micro-batches of so many tokens; returns the list of those that were tried."""
    honest, tried = trained._learner.loss, list[int]()

    def loss(model: Any, step: Any, micro: Any, *made: Any) -> Any:
        tried.append(trained._learner._read(step.collection, micro))
        if tried[-1] > tokens:
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.\nMore of it")
        return honest(model, step, micro, *made)

    trained._learner.loss = loss  # type: ignore[method-assign]
    return tried


HPT = {**GROUPS, "options": {"rollouts": 4, "max_tokens": 8, "gate": 1}}
CASES = [("sft", {}, 70), ("dpo", {"rows_per_step": 6}, 102), ("grpo", GROUPS, 35), ("hpt", HPT, 35)]


@pytest.mark.parametrize(("name", "options", "room"), CASES)
def test_a_step_that_does_not_fit_is_done_again_in_smaller_parts(
    name: str, options: dict[str, Any], room: int, make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    whole, split = (make_trainer(name, output=output, **options) for output in ("whole", "split"))
    whole.train()
    tried = room_for(split, room)
    split.train()
    assert max(tried) > 2 * room and "did not fit into the device's memory" in caplog.text
    first = next(i for i, tokens in enumerate(tried) if tokens <= room)
    assert max(tried[first:]) <= room  # and stays so
    assert (parameters(whole.model) - parameters(split.model)).abs().max() < 1e-12


def test_a_row_that_does_not_fit_is_an_error_that_says_what_to_set(make_trainer: MakeTrainer) -> None:
    trained = make_trainer("sft")
    tried = room_for(trained, 3)
    with pytest.raises(
        SetupError, match=r"Step 1: .* Set training\.micro_batch_tokens: \d+, .*\(Tried to allocate 2.00 GiB\.\)$"
    ):
        trained.train()
    assert min(tried) < max(tried)


def test_a_checkpoint_of_something_else_is_refused(make_trainer: MakeTrainer) -> None:
    saved = make_trainer("sft", save_strategy="steps", save_steps=2)
    saved.train()
    checkpoint = Path(str(saved.args.output_dir)) / "checkpoint-2"
    (checkpoint / "loop_0.json").unlink()
    with pytest.raises(CheckpointError, match=r"is none of this trainer's, with 1 processes: no loop_0\.json"):
        make_trainer("sft", output="other").train(resume_from_checkpoint=str(checkpoint))


def test_of_several_processes_none_does_it_again(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = make_trainer("sft")
    model: Any = trained.model
    step = trained._learner.step(trained._learner.open(model, trained.run_state.collector.collect(model, 0, 0.0)), 0, 0.0)
    monkeypatch.setattr(ranks, "world", lambda: 2)
    tokens = trained._learner.micro_batch_tokens(step)
    with pytest.raises(
        SetupError, match=f"micro-batches of {tokens} tokens. Set training.micro_batch_tokens: {tokens // 2},"
    ):
        trained._smaller(step, torch.OutOfMemoryError("full"))


class Broken(TrainerCallback):
    """A tracker whose service is gone."""

    told = 0

    def on_log(self, *_: Any, **__: Any) -> None:
        self.told += 1
        raise ConnectionError("api.example.org is not there")


Broken.__module__ = "transformers.integrations.integration_utils"


def test_a_tracker_that_fails_is_told_nothing_more_and_the_run_goes_on(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Broken()
    trained = make_trainer("sft", logging_steps=1, trainer_options={"callbacks": [tracker]})
    trained.train()
    assert tracker.told == 1 and "Broken failed (ConnectionError: api.example.org is not there)" in caplog.text
    lines = (Path(str(trained.args.output_dir)) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
