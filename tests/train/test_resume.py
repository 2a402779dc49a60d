"""A run that is broken off and goes on is the run that was not: parameters, optimizer, generators and metrics, bit by bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import NAMES
from posttrain import PostTrainer
from posttrain.algorithms import KIND
from posttrain.distributed.signals import Interruption
from posttrain.errors import Interrupted
from posttrain.train.collect.order import Mixed
from posttrain.train.collect.order.rules import Blocked, Cyclical, Sorted
from tiny import make_model, parameters

MakeTrainer = Callable[..., PostTrainer]
STEPS = 6
OPTIONS: dict[str, dict[str, Any]] = {
    "grpo": {"updates": 2, "kl_coef": {"target": 1e-3}, "entropy_coef": {"target": 5.3, "start": 0.01}},
    "dr_grpo": {"max_tokens": 8},
    "prefix_rft": {"updates": 2, "max_tokens": 8},
    "hpt": {"max_tokens": 8, "gate": 1},
    "luffy": {"max_tokens": 8},
    "srft": {"max_tokens": 8},
    "psft": {"updates": 3},
    "chord": {"demonstrations": 3},
    "opd": {"updates": 2, "teacher_template": "{prompt} (as in {demonstration})"},
    "sdpo": {"updates": 2, "distillation_weight": 0.5, "teacher_template": "{prompt} (as {right})"},
    "relift": {"updates": 2, "buffer_size": 3},
}
TIMES = ("seconds", "tokens_per_second")
Ended = tuple[torch.Tensor, list[torch.Tensor], list[dict[str, Any]]]


def options_of(name: str) -> dict[str, Any]:
    return {**({"rollouts": 4} if _samples(name) else {}), **OPTIONS.get(name, {})}


def _samples(name: str) -> bool:
    return KIND.members[name].trains_on == "rollouts"


def trainer(make: MakeTrainer, name: str, output: str, **options: Any) -> PostTrainer:
    """With dropout, so that the generators matter, where the algorithm allows it."""
    on_rollouts = _samples(name)
    more = {"sample_evaluation": lambda step: {"eval/questions/step": float(step)}} if on_rollouts else {}
    return make(
        name,
        output=output,
        model=make_model(attention_dropout=0.2),
        options=options_of(name),
        rows_per_step=8,
        optim="adamw_torch",
        learning_rate=1e-3,
        max_steps=STEPS,
        evaluate=not on_rollouts,
        trainer_options={**more, **options.pop("trainer_options", {})},
        **{"eval_strategy": "steps", "eval_steps": 2, **options},
    )


def ended(trained: PostTrainer) -> Ended:
    """Parameters, what the optimizer keeps, and every line of the metrics without times."""
    optimizer: Any = trained.optimizer
    kept = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    folder = Path(str(trained.args.output_dir))
    lines = [json.loads(line) for name in ("metrics", "eval") for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return (
        parameters(trained.model),
        [torch.as_tensor(value) for value in kept],
        [{name: value for name, value in line.items() if not name.endswith(TIMES)} for line in lines],
    )


def differ(one: Ended, other: Ended) -> list[str]:
    """Which of the three do."""
    found = [] if torch.equal(one[0], other[0]) else ["parameters"]
    if len(one[1]) != len(other[1]) or not all(map(torch.equal, one[1], other[1])):
        found.append("optimizer")
    return found if one[2] == other[2] else [*found, "metrics"]


def goes_on(make: MakeTrainer, name: str, output: str, step: int, **options: Any) -> Ended:
    again = trainer(make, name, output, **options)
    folder = Path(str(again.args.output_dir))
    again.run_files.resume_at(step)
    again.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    return ended(again)


CARRY = ("sft", "dpo", "kto", "grpo", "dapo", "remax", "prefix_rft", "uft", "hpt", "luffy", "chord", "opd", "sdpo", "kd")
"""Algorithms of every kind that a run carries something of from step to step: wherever tests are; all in the system tier."""


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.system] * (one not in CARRY)) for one in NAMES])
def test_a_run_that_goes_on_is_the_uninterrupted_one(name: str, make_trainer: MakeTrainer) -> None:
    whole = trainer(make_trainer, name, "run", save_strategy="steps", save_steps=3)
    whole.train()
    assert not differ(ended(whole), goes_on(make_trainer, name, "run", 3))


@pytest.mark.parametrize(
    "name",
    ["grpo", "relift", *(pytest.param(one, marks=pytest.mark.system) for one in ("sft", "dpo", "hpt", "prefix_rft"))],
)
def test_it_is_after_each_of_its_steps(name: str, make_trainer: MakeTrainer) -> None:
    """Within a collection and between two; with what is buffered for later."""
    whole = trainer(make_trainer, name, "run", save_strategy="steps", save_steps=1)
    whole.train()
    expected = ended(whole)
    for step in range(1, STEPS):
        assert not differ(expected, goes_on(make_trainer, name, "run", step)), step


@pytest.mark.parametrize(("name", "ends"), [("sft", 24), ("grpo", 6)])
def test_a_mixture_goes_on_in_its_phases_as_if_never_broken_off(name: str, ends: int, make_trainer: MakeTrainer) -> None:
    rows: Any = trainer(make_trainer, name, "rows").train_dataset
    given = {
        "mixed": Mixed(("a", "b"), (10, 14), ((ends, (3, 1)), (2 * ends, (1, 9)))),
        "train_dataset": [dataclasses.replace(row, source="ab"[i > 9]) for i, row in enumerate(rows)],
    }
    whole = trainer(make_trainer, name, "run", save_strategy="steps", save_steps=2, trainer_options=given)
    whole.train()
    for step in (2, 4):
        assert not differ(ended(whole), goes_on(make_trainer, name, "run", step, trainer_options=dict(given))), step
    shares = [line["data/share/a"] for line in ended(whole)[2] if "data/share/a" in line]
    assert len(shares) == STEPS and sum(shares[:3]) > 2 > 1 > sum(shares[3:])
    assert any("nll/a" in line for line in ended(whole)[2]) == (name == "sft")


ORDERS: dict[str, dict[str, Any]] = {
    "sft": {"order": Cyclical.growing(np.arange(1, 25, dtype=np.float64), least=0.3, factor=2.0), "tokens_per_step": 130},
    "psft": {"order": Blocked(np.arange(24) % 3), "tokens_per_step": 130},
    "dpo": {"tokens_per_step": 300},
    "grpo": {"order": Sorted(np.arange(24, dtype=np.float64) % 5)},
}


@pytest.mark.parametrize("name", ORDERS)
def test_an_order_and_steps_of_tokens_go_on_as_if_never_broken_off(name: str, make_trainer: MakeTrainer) -> None:
    whole = trainer(make_trainer, name, "run", save_strategy="steps", save_steps=1, trainer_options=dict(ORDERS[name]))
    whole.train()
    for step in (1, 3, 4):
        assert not differ(ended(whole), goes_on(make_trainer, name, "run", step, trainer_options=dict(ORDERS[name]))), step
    if bound := ORDERS[name].get("tokens_per_step"):
        spent = [line["step/tokens"] for line in ended(whole)[2] if "step/tokens" in line]
        assert len(spent) == STEPS and len(set(spent)) > 1 and max(spent) <= bound


@pytest.mark.parametrize("what", ["rng_state.pth", "collection.safetensors", "optimizer.pt"])
def test_without_a_part_of_its_state_it_is_another_run(what: str, make_trainer: MakeTrainer) -> None:
    name = "grpo" if what.startswith("collection") else "sft"
    whole = trainer(make_trainer, name, "run", save_strategy="steps", save_steps=3)
    whole.train()
    expected = ended(whole)
    (Path(str(whole.args.output_dir)) / "checkpoint-3" / what).unlink()
    assert "parameters" in differ(expected, goes_on(make_trainer, name, "run", 3))


PLACES = {"rollouts": 4, "step": 5, "evaluation": 4, "saving": 4}
"""Where a signal comes, and the step of the checkpoint that it leaves."""


def interrupt(trained: PostTrainer, place: str) -> None:
    """Makes the signal come there, in or after the fourth step."""
    owner, name = {
        "rollouts": (trained.run_state.collector, "collect"),
        "step": (trained, "_backward"),
        "evaluation": (trained, "_evaluated"),
        "saving": (trained, "_save_rng_state"),
    }[place]
    sampled = place == "evaluation" and trained._watching.sample_evaluation
    honest = sampled or getattr(owner, name)

    def signalled(*arguments: Any, **options: Any) -> Any:
        result = honest(*arguments, **options)
        if trained.state.global_step == 4 and trained._interruption is not None and trained._interruption.by is None:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    if sampled:
        trained._watching = dataclasses.replace(trained._watching, sample_evaluation=signalled)
    else:
        setattr(owner, name, signalled)


@pytest.fixture(scope="module")
def wholes() -> dict[str, Ended]:
    """Runs that were never broken off, by their algorithm: each is made once."""
    return {}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ["sft", "grpo"])
def test_a_signal_ends_it_with_a_checkpoint_that_goes_on(
    name: str, place: str, make_trainer: MakeTrainer, wholes: dict[str, Ended]
) -> None:
    if name not in wholes:
        whole = trainer(make_trainer, name, "whole")
        whole.train()
        wholes[name] = ended(whole)
    with Interruption() as interruption:
        options = {"save_strategy": "steps", "save_steps": 4} if place == "saving" else {}
        broken = trainer(make_trainer, name, "broken", trainer_options={"interruption": interruption}, **options)
        interrupt(broken, place)
        with pytest.raises(Interrupted, match=f"SIGTERM: ended with checkpoint-{PLACES[place]}"):
            broken.train()
    folder = Path(str(broken.args.output_dir))
    assert [path.name for path in folder.glob("checkpoint-*")] == [f"checkpoint-{PLACES[place]}"]
    for _ in range(2):  # the second time as if the first had been killed before its next checkpoint
        assert not differ(wholes[name], goes_on(make_trainer, name, "broken", PLACES[place]))


def test_a_signal_before_the_first_step_has_nothing_to_save(make_trainer: MakeTrainer) -> None:
    with Interruption() as interruption:
        broken = trainer(make_trainer, "sft", "broken", trainer_options={"interruption": interruption})
        honest = broken.run_state.collector.collect

        def signalled(*arguments: Any) -> Any:
            os.kill(os.getpid(), signal.SIGUSR1)
            return honest(*arguments)

        broken.run_state.collector.collect = signalled  # type: ignore[method-assign]
        with pytest.raises(Interrupted, match="SIGUSR1: ended before the first step was done"):
            broken.train()
    assert not list(Path(str(broken.args.output_dir)).glob("checkpoint-*"))
