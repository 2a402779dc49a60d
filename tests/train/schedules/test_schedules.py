"""Schedules: closed forms, a function of the user's, and the rate from which a run goes on that is longer now."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from math import log, sqrt
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
from posttrain.settings.training import Budget
from posttrain.train.schedules import SCHEDULES, ScheduleConfig, built_schedule
from posttrain.train.schedules.function import FunctionSchedule
from posttrain.train.schedules.rex import REX, rex

MakeTrainer = Callable[..., PostTrainer]
TABLE = [1.0, 0.5, 0.75, 0.0]
NEEDED = {
    "infinite": {"cooldown": 300, "anneal_from": 700},
    "power": {"a": 0.5, "b": -0.5, "batch": 30, "tokens": 1},
    "table": {"path": "table.json"},
}


@pytest.fixture
def example(tmp_path: Path) -> Callable[..., ScheduleConfig]:
    """A schedule by name, with the options that it needs."""
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    kinds = {name_of(config): config for config in SCHEDULES}

    def made(name: str, **options: Any) -> ScheduleConfig:
        values = {**NEEDED.get(name, {}), **options}
        return kinds[name].model_validate(values, context={"folder": tmp_path})

    return made


@pytest.mark.parametrize(("z", "factor"), [(0.0, 1.0), (0.25, 6 / 7), (0.5, 2 / 3), (0.75, 0.4), (1.0, 0.0)])
def test_rex_is_its_closed_form(z: float, factor: float) -> None:
    assert rex(z) == pytest.approx(factor, abs=1e-15) and rex(z, least=0.1) == pytest.approx(0.1 + 0.9 * factor, abs=1e-15)
    assert z in (0, 1) or rex(z) > 1 - z, "above a linear decay everywhere inside"


@pytest.mark.parametrize("name", map(name_of, SCHEDULES))
def test_every_schedule_warms_up_is_never_negative_and_has_no_jump(name: str, example: Callable[..., ScheduleConfig]) -> None:
    schedule = example(name)
    factor = built_schedule(schedule)
    rates = [factor(step, 1000, 100) for step in range(1001)]
    start = {"rewarm": 0.1}.get(name, 0.0)
    assert rates[0] == start and rates[50] == pytest.approx((1 + start) / 2, abs=1e-15) and rates[100] == 1
    assert min(rates) >= 0
    assert max(abs(one - other) for one, other in pairwise(rates)) < 0.08, "a jump: of 1000 steps one changes it by more"
    assert factor(0, 10, 0) == 1 and (factor(12, 10, 0) == factor(10, 10, 0) or not schedule.by_progress)


def shape(name: str, *values: float, **options: Any) -> tuple[str, dict[str, Any], tuple[float, ...]]:
    return name, options, values


@pytest.mark.parametrize(
    ("name", "options", "values"),
    [
        shape("linear", 1, 0.75, 0.5, 0.25, 0),
        shape("linear", 1, 0.8, 0.6, 0.4, 0.2, min=0.2),
        shape("wsd", 1, 1, 1, 1 - sqrt(0.5), 0, decay=0.5),
        shape("wsd", 1, 1, 1, 0.75, 0.5, decay=0.5, shape="linear", min=0.5),
        shape("wsd", 1, (2 + sqrt(2)) / 4, 0.5, (2 - sqrt(2)) / 4, 0, decay=1, shape="cosine"),
        shape("rewarm", 1, 0.2 + 0.2 * (2 + sqrt(2)), 0.6, 0.2 + 0.2 * (2 - sqrt(2)), 0.2, min=0.2),
        shape("infinite", 1, 0.55, 0.1, 0.1, 0.1, cooldown=400, anneal_from=None),
        shape("infinite", 1, 0.2, 0.2, 0.1, 0.05, cooldown=200, constant=0.2, anneal_from=400, min=0.05),
        shape("table", 1, 0.625, 0.625, 0.5625, 0),
        shape("power", 1, 1 / 10, 1 / sqrt(200), 1 / sqrt(300), 1 / 20, a=0.5, batch=2, tokens=2, b=-0.5, decay=0),
        shape("power", 1, 1, 1, 0.1, 0.01, a=4, batch=1, tokens=1, b=-0.001, decay=0.5),
    ],
)
def test_its_values_are_those_of_the_formula(
    name: str, options: dict[str, Any], values: tuple[float, ...], example: Callable[..., ScheduleConfig]
) -> None:
    """At the quarters of a run of 800 steps without warm-up and with a warm-up in front of it."""
    steps = 200 if name == "power" and not options["decay"] else 800
    factor = built_schedule(example(name, **options))
    assert [factor(steps * i // 4, steps, 0) for i in range(5)] == pytest.approx(values, rel=1e-12, abs=1e-12)
    if name != "power" and name != "infinite":
        assert [factor(200 + steps * i // 4, 200 + steps, 200) for i in range(5)] == pytest.approx(
            values, rel=1e-12, abs=1e-12
        )


def test_what_is_independent_of_the_runs_length_is(example: Callable[..., ScheduleConfig]) -> None:
    """The infinite schedule until it is told to decay; the power law, whose slope in logarithms is b, below its cap."""
    endless = built_schedule(example("infinite", anneal_from=None))
    assert [endless(step, 10**3, 10) for step in range(999)] == [endless(step, 10**9, 10) for step in range(999)]
    law = built_schedule(example("power", a=4.6, b=-0.51, batch=16, tokens=4096, decay=0.0), learning_rate=0.02)
    rates = [(log(step), log(law(step, 10**6, 0))) for step in (10**4, 10**5, 9 * 10**5)]
    assert [(y - v) / (x - u) for (u, v), (x, y) in pairwise(rates)] == pytest.approx([-0.51, -0.51], rel=1e-12)
    assert law(10**4, 10**6, 0) * 0.02 == pytest.approx(16 * 4.6 * (4096 * 10**4) ** -0.51, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("table", {"path": "none.json"}, "No such file"),
        ("table", {"path": "other.json"}, "has 'x' at place 1: a number of 0 or more is expected"),
        ("infinite", {"min": 0.5}, "min: 0.5 is above constant: 0.1"),
        ("power", {"b": 0.5}, "less than 0"),
    ],
)
def test_options_that_make_no_schedule_are_refused(
    name: str, options: dict[str, Any], says: str, example: Callable[..., ScheduleConfig], tmp_path: Path
) -> None:
    (tmp_path / "other.json").write_text('[1, "x"]')
    with pytest.raises(ValidationError, match=says):
        example(name, **options)


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
        ({"lr_scheduler_type": "cosine", "budget": {"tokens": 9}}, "budget: take lr_scheduler_type: constant"),
        (
            {"schedule": {"name": "infinite", "cooldown": 3}, "budget": {"tokens": 9}},
            "not read progress alone, as linear, rex, wsd",
        ),
        ({"schedule": {"name": "rex"}, "budget": {"tokens": 9}, "warmup_steps": 3}, "a share of the budget, below 1"),
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


@pytest.mark.parametrize("name", [*get_args(Scheduler), *(f"schedule: {name_of(one)}" for one in SCHEDULES)])
def test_a_run_that_is_longer_now_goes_on_at_the_new_schedules_rate(
    name: str, make_trainer: MakeTrainer, example: Callable[..., ScheduleConfig]
) -> None:
    _, _, own = name.partition("schedule: ")

    def made(output: str, steps: int) -> tuple[PostTrainer, Rates]:
        rates = Rates()
        settings: dict[str, Any] = {"trainer_options": {"callbacks": [rates]}}
        if own:
            settings["trainer_options"]["schedule"] = built_schedule(example(own))
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


def test_with_a_budget_the_rate_follows_the_share_that_is_spent(make_trainer: MakeTrainer) -> None:
    rates = Rates()
    own: dict[str, Any] = {"schedule": built_schedule(REX()), "budget": Budget(tokens=600), "callbacks": [rates]}
    trainer = make_trainer("sft", max_steps=10_000, trainer_options=own)
    trainer.train()
    lines = [json.loads(line) for line in (Path(str(trainer.args.output_dir)) / "metrics.jsonl").read_text().splitlines()]
    before = [sum(line["step/tokens"] for line in lines[:i]) for i in range(len(lines))]
    assert len(lines) > 3 and before[-1] < 600
    assert rates.seen == [0.1 * rex(round(10_000 * spent / 600) / 10_000) for spent in before]
    assert rates.seen == [line["learning_rate"] for line in lines]
