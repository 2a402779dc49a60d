"""Schedules: closed forms, a function of the user's, and the rate from which a run goes on that is longer now."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from transformers import TrainerCallback

from posttrain import PostTrainer
from posttrain.errors import RecipeError
from posttrain.recipe.training import Scheduler, TrainingConfig
from posttrain.settings.doors.kinds import name_of
from posttrain.settings.faults import faults
from posttrain.train.schedules import SCHEDULES, built_schedule
from posttrain.train.schedules.function import FunctionSchedule
from posttrain.train.schedules.rex import REX, rex

MakeTrainer = Callable[..., PostTrainer]


@pytest.mark.parametrize(("z", "factor"), [(0.0, 1.0), (0.25, 6 / 7), (0.5, 2 / 3), (0.75, 0.4), (1.0, 0.0)])
def test_rex_is_its_closed_form(z: float, factor: float) -> None:
    assert rex(z) == pytest.approx(factor, abs=1e-15) and rex(z, least=0.1) == pytest.approx(0.1 + 0.9 * factor, abs=1e-15)
    assert z in (0, 1) or rex(z) > 1 - z, "above a linear decay everywhere inside"


@pytest.mark.parametrize("config", SCHEDULES, ids=name_of)
def test_every_schedule_warms_up_from_0_is_never_negative_and_has_no_jump(config: Any) -> None:
    factor = built_schedule(config())
    rates = [factor(step, 1000, 100) for step in range(1001)]
    assert rates[0] == 0 and rates[50] == 0.5 and rates[100] == 1
    assert min(rates) >= 0
    assert max(abs(one - other) for one, other in pairwise(rates)) < 0.02, "a jump: of 1000 steps one changes it by more"
    assert factor(0, 10, 0) == 1 and factor(12, 10, 0) == factor(10, 10, 0)


MINE = """
def half(step, steps, warmup, low=0.5): return low
def text(step, steps, warmup): return "1"
def fails(step, steps, warmup): return 1 / abs(step - 50)
def below(step, steps, warmup): return -1
def other(step): return 1
"""


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text", "gave '1' at step 0"),
        ("fails", "ZeroDivisionError at step 50"),
        ("below", "0 or more"),
        ("other", "unexpected"),
    ],
)
def test_a_function_that_is_no_schedule_is_refused(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    with pytest.raises(RecipeError, match=says):
        built_schedule(FunctionSchedule(path=f"{tmp_path}/mine.py:{name}"))
    assert built_schedule(FunctionSchedule(path=f"{tmp_path}/mine.py:half", options={"low": 0.25}))(3, 10, 0) == 0.25


def test_there_is_one_schedule_and_it_is_linear_where_nobody_says() -> None:
    steps = {"max_steps": 1}
    assert TrainingConfig.model_validate(steps).lr_scheduler_type == "linear"
    own = TrainingConfig.model_validate({**steps, "schedule": {"name": "rex", "min": 0.1}})
    assert own.schedule == REX(min=0.1) and own.lr_scheduler_type is None
    assert TrainingConfig.model_validate(own.model_dump()) == own
    for wrong, says in (
        ({"schedule": {"name": "rex"}, "lr_scheduler_type": "cosine"}, "schedule: give it or lr_scheduler_type, not both"),
        ({"schedule": {"name": "rexx"}}, "schedule.name: rexx is unknown; did you mean rex?"),
        ({"schedule": {"name": "rex"}, "budget": {"tokens": 9}}, "budget: take lr_scheduler_type: constant"),
    ):
        with pytest.raises(ValidationError) as caught:
            TrainingConfig.model_validate({**steps, **wrong})
        assert says in str(faults(caught.value)[0])


KWARGS = {
    "cosine_with_min_lr": {"min_lr": 0.01},
    "cosine_warmup_with_min_lr": {"min_lr": 0.01},
    "warmup_stable_decay": {"num_decay_steps": 2},
}


class Rates(TrainerCallback):
    """The rate that each optimizer step is made with."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("name", [*get_args(Scheduler), *map(name_of, SCHEDULES)])
def test_a_run_that_is_longer_now_goes_on_at_the_new_schedules_rate(name: str, make_trainer: MakeTrainer) -> None:
    own = {name_of(config): config for config in SCHEDULES}

    def made(output: str, steps: int) -> tuple[PostTrainer, Rates]:
        rates = Rates()
        settings: dict[str, Any] = {"trainer_options": {"callbacks": [rates]}}
        if name in own:
            settings["trainer_options"]["schedule"] = built_schedule(own[name].model_validate({}))
        else:
            settings |= {"lr_scheduler_type": name, "lr_scheduler_kwargs": KWARGS.get(name, {})}
        saves = {"save_strategy": "steps", "save_steps": 3}
        return make_trainer("sft", output=output, max_steps=steps, warmup_steps=1, **saves, **settings), rates

    (whole, expected), (short, _), (longer, rates) = made("whole", 7), made("short", 4), made("short", 7)
    whole.train()
    short.train()
    folder = Path(str(longer.args.output_dir))
    longer.run_files.resume_at(3)
    longer.train(resume_from_checkpoint=str(folder / "checkpoint-3"))
    written = [json.loads(line)["learning_rate"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(expected.seen) == 7 and rates.seen == written[3:] == expected.seen[3:]
