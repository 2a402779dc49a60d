"""A recipe's transforms, in order, over the records of its sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from random import Random

from posttrain.data.rows import BadRow
from posttrain.data.sources.record import Record
from posttrain.data.transforms._transform import Rows, Side, Transform, TransformConfig, Unfit
from posttrain.errors import DataError, RecipeError

COUNTER = "transformed_away"


def built_transform(config: TransformConfig, number: int, rows: Rows = lambda: iter(())) -> Transform:
    """The transform that a config describes, the `number`th of the recipe.

    Raises:
        RecipeError: it cannot be had.
        DataError: what is trained on has nothing that it could be made of.
    """
    try:
        return config.build(rows)
    except BadRow as bad:
        raise DataError(f"data.transforms.{number} ({config.label}): {bad}.") from None
    except ValueError as error:
        raise RecipeError(f"data.transforms.{number}: {error}") from error


class Transforms:
    """Those of a recipe, each built when a row first comes to it. What becomes of a row is a function of it and the seed, and
    for those that read all of what is trained on of that as a set: neither of its neighbours, nor of their order, nor of how
    many processes there are.

    Args:
        configs: in order.
        seed: of the run.
        train: reads what is trained on from its beginning; asked only where a transform needs to know all of it.
    """

    def __init__(self, configs: Sequence[TransformConfig], *, seed: int, train: Callable[[], Iterable[Record]]) -> None:
        self._configs, self._seed, self._train = configs, seed, train
        self._built: dict[int, Transform] = {}

    def through(self, records: Iterable[Record], side: Side) -> Iterator[Record]:
        """What becomes of records of a set of this kind. Those that cannot be used have a `fault`, those of which nothing is
        made are `left_out`; of several that are made of one each is called by its place and a number.

        Raises:
            RecipeError: a transform cannot be had.
            DataError: what is trained on has nothing that it could be made of.
        """
        return self._by(len(self._configs), records, side)

    def _by(self, steps: int, records: Iterable[Record], side: Side) -> Iterator[Record]:
        chosen = [number for number in range(steps) if side in self._configs[number].sets]
        for record in records:
            made = [record]
            for number in chosen:
                made = [one for each in made for one in self._of(each, number)]
            yield from made

    def _of(self, record: Record, number: int) -> list[Record]:
        if record.fault is not None or record.left_out is not None:
            return [record]
        config = self._configs[number]
        if number not in self._built:
            self._built[number] = built_transform(config, number, partial(self._usable, number))
        who = f"data.transforms.{number} ({config.label})"
        try:
            if lacking := [name for name in config.columns if record.columns.get(name) is None]:
                has = ", ".join(name for name, value in record.columns.items() if value is not None)
                raise BadRow(f"it reads the column {lacking[0]}, which the row does not have; it has {has or 'none'}")
            made = self._built[number](record, Random(f"{config.name}/{number}/{self._seed}/{PurePath(record.where).name}"))
        except Unfit as unfit:
            return [replace(record, left_out=(COUNTER, f"{who}: {unfit}"))]
        except BadRow as bad:
            return [replace(record, fault=f"{who}: {bad}")]
        read = record.read | {*config.columns}
        if len(made) == 1:
            return [replace(record, columns=made[0], read=read)]
        if not made:
            return [replace(record, left_out=(COUNTER, f"{who}: it makes nothing of the row"))]
        return [replace(record, where=f"{record.where}#{i}", columns=one, read=read) for i, one in enumerate(made, 1)]

    def _usable(self, steps: int) -> Iterator[Record]:
        """What is trained on, after the first steps, without what is not read."""
        for record in self._by(steps, self._train(), "train"):
            if record.fault is None and record.left_out is None:
                yield record
