"""What records pass through before they are encoded: a look for what evaluation asks, and the recipe's transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from posttrain.data.overlap import Overlaps
from posttrain.data.sources import Record
from posttrain.data.transforms import Transforms
from posttrain.data.transforms._transform import Side
from posttrain.data.transforms.control_token import ControlToken
from posttrain.execution.prepare.data.beginnings import Beginnings
from posttrain.execution.prepare.mixture import parts, records_of
from posttrain.recipe import Recipe
from posttrain.settings.data import DataConfig


class Passage:
    """The way of a recipe's records.

    Args:
        recipe: whose transforms they are.
        looked: looks for the questions of its evaluation sets.
        made: what is trained on, where it is made; the rows of its sources if not given.
        begin: how the recipe's environment begins with each, where there is one; what it says first is then the prompt.
    """

    def __init__(
        self, recipe: Recipe, looked: Overlaps, made: Sequence[Record] | None = None, begin: Beginnings | None = None
    ) -> None:
        self._recipe, self._looked, self._made, self._begin = recipe, looked, made, begin
        changes = recipe.data.transforms
        signs = [begin is not None and isinstance(one, ControlToken) and one.always is not None for one in changes]
        self._transforms, self._signs = (
            Transforms(
                [
                    one if sign is late else one.model_copy(update={"sets": []})
                    for one, sign in zip(changes, signs, strict=True)
                ],
                seed=recipe.seed,
                train=self._all,
            )
            for late in (False, True)
        )

    def trained(self, records: Iterable[Record]) -> Iterator[Record]:
        """What is trained on of a set, looked at as its source has it, and as the transforms make it."""
        before = self._looked.through(records)
        found = self._looked.through(self._transforms.through(before, "train")) if self._recipe.data.transforms else before
        plays = self._recipe.rollout is not None or self._recipe.data.collect is not None
        return self.begun(found) if plays else iter(found)

    def asked(self, records: Iterable[Record]) -> Sequence[Record]:
        """What is evaluated of a set."""
        return list(self.begun(self._transforms.through(records, "eval"), "eval"))

    def begun(self, records: Iterable[Record], side: Side = "train") -> Iterator[Record]:
        """As their environment begins, where there is one; a control token that is always said stands before what it says."""
        if self._begin is None:
            return iter(records)
        return self._signs.through(self._begin.of(records), side)

    def _all(self) -> Iterator[Record]:
        every = all_of(self._recipe.data, self._recipe.seed) if self._made is None else self._made
        return self._looked.through(every)


def all_of(data: DataConfig, seed: int) -> Iterator[Record]:
    """The records of every source that is trained on."""
    return (record for part in parts(data) for record in records_of(part, data, seed))


def told_of(recipe: Recipe) -> list[str]:
    """Each transform, and the sets that it is for."""
    return [f"{one.label} ({' and '.join(one.sets)})" for one in recipe.data.transforms]
