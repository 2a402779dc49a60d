"""Epochs are epochs: each row is read as often as they say, the last step is smaller, and its mean is that of its rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import PostTrainer
from posttrain.errors import SetupError
from posttrain.train.collect.order.rules import Cyclical, Sorted
from tiny import make_model, parameters
from train.naive import log_softmax, of_tokens

MakeTrainer = Callable[..., PostTrainer]
ROWS = 24  # of the trainers' data
OPTIONS: dict[str, dict[str, Any]] = {"psft": {"updates": 3}, "grpo": {"rollouts": 2, "updates": 2}, "dapo": {"rollouts": 2}}
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


@pytest.mark.parametrize(("name", "epochs"), [("sft", 2.0), ("psft", 1.5), ("dpo", 1.0)])
def test_epochs_in_steps_of_tokens_read_each_row_as_often(name: str, epochs: float, make_trainer: MakeTrainer) -> None:
    options: dict[str, Any] = {
        "trainer_options": {"tokens_per_step": 200, "order": Sorted(np.arange(24, dtype=np.float64) % 4)}
    }
    made = trainer(make_trainer, name, epochs, 4, **options)
    steps, places, _ = trained(made)
    assert made.state.global_step == made.args.max_steps == len(steps) and sum(steps) == math.ceil(epochs * ROWS)
    assert len(set(steps)) > 1 and len(places) == ROWS and set(places.values()) <= {math.floor(epochs), math.ceil(epochs)}


def test_a_step_of_tokens_is_divided_by_its_own_tokens_however_it_is_dealt(make_trainer: MakeTrainer) -> None:
    options: dict[str, Any] = {"max_steps": 3, "learning_rate": 0.0}
    for micro in (1, 3, 100):
        given = {"tokens_per_step": 220}
        made = make_trainer("sft", rows_per_step=micro, output=f"by {micro}", trainer_options=given, **options)
        made.train()
        model: Any = made.model
        for step, line in enumerate((Path(str(made.args.output_dir)) / "metrics.jsonl").read_text().splitlines()):
            shown = made.run_state.collector.collect(model, step, 1.0)
            assert sum(map(len, shown.rows)) == json.loads(line)["step/tokens"] <= 220
            mask = shown.batch.loss_mask
            loss = -(of_tokens(log_softmax(model, shown), shown) * mask).sum() / mask.sum()
            model.zero_grad()
            loss.backward()
            norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters() if p.grad is not None))
            assert json.loads(line)["grad_norm"] == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "arguments", "says"),
    [
        ("sft", {"order": Sorted(np.zeros(3))}, {}, "order: it is of one source, of 3 rows, and train_dataset has 24"),
        (
            "sft",
            {"order": Cyclical.growing(np.ones(24), least=0.5, factor=2)},
            {"max_steps": -1, "num_train_epochs": 1},
            "order: its passes differ: set max_steps",
        ),
        ("grpo", {"tokens_per_step": 9}, {}, "tokens_per_step: a step of grpo is of whole groups of rollouts"),
        ("dapo", {"order": Sorted(np.zeros(24))}, {}, "order: dapo replaces groups by questions in random order"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(
    name: str, options: dict[str, Any], arguments: dict[str, Any], says: str, make_trainer: MakeTrainer
) -> None:
    with pytest.raises(SetupError, match=says):
        make_trainer(name, options=OPTIONS.get(name, {}), trainer_options=options, **arguments)


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
