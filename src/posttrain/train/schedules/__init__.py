"""All learning-rate schedules of our own: one file and one line here for each. transformers' are `lr_scheduler_type`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.errors import RecipeError
from posttrain.settings.doors.kinds import Kind
from posttrain.train.schedules._schedule import Factor, ScheduleConfig
from posttrain.train.schedules.function import FunctionSchedule, installed_schedule
from posttrain.train.schedules.infinite import Infinite
from posttrain.train.schedules.linear import Linear
from posttrain.train.schedules.power import Power
from posttrain.train.schedules.rewarm import Rewarm
from posttrain.train.schedules.rex import REX
from posttrain.train.schedules.table import Table
from posttrain.train.schedules.wsd import WSD

SCHEDULES: tuple[type[ScheduleConfig], ...] = (Linear, REX, WSD, Rewarm, Infinite, Power, Table)

KIND = Kind(
    "schedule",
    group="posttrain.schedules",
    base=ScheduleConfig,
    members=(*SCHEDULES, FunctionSchedule),
    wrap=installed_schedule,
)

if TYPE_CHECKING:
    AnySchedule = ScheduleConfig
else:
    AnySchedule = KIND.field


def built_schedule(config: ScheduleConfig, learning_rate: float = 1.0) -> Factor:
    """The schedule that a config describes, as factors of this rate.

    Raises:
        RecipeError: it cannot be built.
    """
    try:
        return config.build_at(learning_rate)
    except ValueError as error:
        raise RecipeError(f"training.schedule: {error}") from error
