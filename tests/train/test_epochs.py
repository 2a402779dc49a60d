"""Epochs are epochs: each row is read as often as they say, the last step is smaller, and its mean is that of its rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain import PostTrainer
from tiny import make_model, parameters
from train.naive import log_softmax, of_tokens

MakeTrainer = Callable[..., PostTrainer]
ROWS = 24  # of the trainers' data
OPTIONS: dict[str, dict[str, Any]] = {"psft": {"updates": 3}, "grpo": {"rollouts": 2, "updates": 2}}
CASES = [("sft", 1.0, 9), ("psft", 1.5, 8), ("dpo", 0.7, 64), ("grpo", 1.0, 10)]


def trainer(make: MakeTrainer, name: str, epochs: float, rows: int, **arguments: Any) -> PostTrainer:
    options = {"options": OPTIONS.get(name, {}), "rows_per_step": rows, "max_steps": -1, "num_train_epochs": epochs}
    return make(name, model=make_model(attention_dropout=0.2), **options, **arguments)


def trained(made: PostTrainer) -> tuple[list[int], Counter[str], torch.Tensor]:
    """Rows of each step, how often each was read, and the parameters."""
    steps: list[int] = []
    places = Counter[str]()
    learner: Any = made._learner
    original = learner.step

    def watched(*arguments: Any) -> Any:
        step = original(*arguments)
        steps.append(len(step.where))
        places.update(step.where)
        return step

    learner.step = watched
    made.train()
    return steps, places, parameters(made.model)


@pytest.mark.parametrize(("name", "epochs", "rows"), CASES)
def test_each_row_is_read_as_often_as_the_epochs_say(name: str, epochs: float, rows: int, make_trainer: MakeTrainer) -> None:
    per_question = 2 if name == "grpo" else 1
    read = math.ceil(epochs * ROWS) * per_question
    steps, places, _ = trained(trainer(make_trainer, name, epochs, rows))
    full, left = divmod(read, rows)
    assert steps == [rows] * full + [left] * bool(left)
    assert sum(places.values()) == read and set(places.values()) <= {per_question, 2 * per_question}
    assert len(places) == min(ROWS, read // per_question)


def test_a_smaller_step_is_divided_by_its_own_tokens(make_trainer: MakeTrainer) -> None:
    made = make_trainer("sft", rows_per_step=9, max_steps=-1, num_train_epochs=1, learning_rate=0.0)
    made.train()
    lines = (Path(str(made.args.output_dir)) / "metrics.jsonl").read_text().splitlines()
    model: Any = made.model
    shown = made.run_state.collector.collect(model, 2, 1.0)
    assert len(shown.rows) == 6
    mask = shown.batch.loss_mask
    loss = -(of_tokens(log_softmax(model, shown), shown) * mask).sum() / mask.sum()
    model.zero_grad()
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
    assert json.loads(lines[2])["grad_norm"] == pytest.approx(norm, rel=1e-12)
    assert json.loads(lines[2])["loss"] == pytest.approx(float(loss.detach()), rel=1e-12)


@pytest.mark.parametrize(("name", "epochs", "rows"), [case for case in CASES if case[0] != "dpo"])
def test_a_run_of_epochs_goes_on_into_its_smaller_step_as_if_never_broken_off(
    name: str, epochs: float, rows: int, make_trainer: MakeTrainer
) -> None:
    options = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
    whole = trainer(make_trainer, name, epochs, rows, **options)
    steps, _, expected = trained(whole)
    for step in range(1, len(steps)):
        again = trainer(make_trainer, name, epochs, rows, **options)
        again.run_files.resume_at(step)
        again.train(resume_from_checkpoint=str(Path(str(again.args.output_dir)) / f"checkpoint-{step}"))
        assert torch.equal(parameters(again.model), expected), step
