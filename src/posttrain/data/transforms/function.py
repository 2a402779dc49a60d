"""A transform of yours: a function, by path, or brought by an installed package."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from random import Random
from typing import Any, Literal

from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Columns, Rows, Transform, TransformConfig
from posttrain.settings.doors.door import Door, check_call, installed


class FunctionTransform(Door, TransformConfig):
    """A function of yours, by path: (columns, rng, **options) → columns, a list of them, or None; needs --allow-code."""

    name: Literal["function"] = "function"

    @property
    def columns(self) -> tuple[str, ...]:
        """The function says itself what it lacks."""
        return ()

    def build(self, rows: Rows) -> Transform:
        """The function; what it raises ends the run, or leaves the row out, as bad rows are treated."""
        function, path, options = self.load(), self.path, self.options
        check_call(path, function, {"columns": {}, "rng": Random(0), **options})

        def called(record: Record, rng: Random) -> list[Columns]:
            try:
                made: Any = function(columns=dict(record.columns), rng=rng, **options)
            except Exception as error:  # code of the user's may fail in any way
                raise BadRow(f"it raised {type(error).__name__}: {error}") from error
            several: list[Any] = [] if made is None else made if isinstance(made, list) else [made]
            if wrong := [
                one for one in several if not isinstance(one, dict) or not all(isinstance(name, str) for name in one)
            ]:
                raise BadRow(f"it gave {wrong[0]!r:.60}: a mapping of columns, a list of these, or None is expected")
            return several

        return called


def installed_transform(point: EntryPoint, brought: Any) -> type[FunctionTransform]:
    """The config of a function that an installed package brings; its options stand under `options`."""
    if not callable(brought):
        raise ValueError(f"{point.value} is neither a config class with build nor a function of columns and rng")
    return installed(FunctionTransform, point.name, point.value)
