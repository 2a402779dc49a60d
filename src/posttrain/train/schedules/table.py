"""A schedule by its values: factors at even distances, and straight lines between them."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ValidationInfo, model_validator

from posttrain.train.schedules._schedule import Factor, ScheduleConfig, after_warmup


def _placed(path: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return os.path.abspath(path if folder is None else Path(folder, path))


class Table(ScheduleConfig):
    """The factors of a JSON file: a list, from the end of warm-up to the end of the run."""

    by_progress: ClassVar[bool] = True
    name: Literal["table"] = "table"
    path: Annotated[str, AfterValidator(_placed)]
    """A file with a list of two numbers or more, none below 0; relative to the recipe's file. The first is the factor at the
    end of warm-up, the last that at the end of the run; they stand at even distances, and between two of them is a straight
    line."""

    @model_validator(mode="after")
    def _can_be_read(self) -> Table:
        self.factors()
        return self

    def factors(self) -> list[float]:
        """What the file has.

        Raises:
            ValueError: it cannot be read, or has something else.
        """
        try:
            found: Any = json.loads(Path(self.path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"path: {self.path}: {error.strerror or error}") from None
        except ValueError as error:
            raise ValueError(f"path: {self.path} is no JSON: {error}") from None
        if not isinstance(found, list) or len(found) < 2:
            raise ValueError(f"path: {self.path} has no list of two numbers or more")
        for place, one in enumerate(found):
            if isinstance(one, bool) or not isinstance(one, (int, float)) or not 0 <= one < float("inf"):
                raise ValueError(f"path: {self.path} has {one!r:.60} at place {place}: a number of 0 or more is expected")
        return [float(one) for one in found]

    def build(self) -> Factor:
        """Warm-up, then the factors."""
        lines = list(pairwise(self.factors()))

        def rate(z: float) -> float:
            place = z * len(lines)
            number = min(int(place), len(lines) - 1)
            left, right = lines[number]
            return left + (right - left) * (place - number)

        return after_warmup(rate)
