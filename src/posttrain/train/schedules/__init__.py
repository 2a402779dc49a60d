"""All learning-rate schedules of our own: one file and one line here for each. transformers' are `lr_scheduler_type`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.errors import RecipeError
from posttrain.settings.doors.kinds import Kind
from posttrain.train.schedules._schedule import Factor, ScheduleConfig
from posttrain.train.schedules.function import FunctionSchedule, installed_schedule
from posttrain.train.schedules.rex import REX

SCHEDULES: tuple[type[ScheduleConfig], ...] = (REX,)

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


def built_schedule(config: ScheduleConfig) -> Factor:
    """The schedule that a config describes.

    Raises:
        RecipeError: it cannot be built.
    """
    try:
        return config.build()
    except ValueError as error:
        raise RecipeError(f"training.schedule: {error}") from error
