"""A recipe's source of training that is read as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from posttrain.data.encoding.teacher import Asked
from posttrain.data.reader import Reader
from posttrain.data.rows import DataReport, Example
from posttrain.data.rows.stream import Stream
from posttrain.data.sources import read
from posttrain.errors import RecipeError
from posttrain.estimator import Algorithm
from posttrain.execution.prepare.passage import Passage
from posttrain.model.load import context_of
from posttrain.recipe import Recipe
from posttrain.settings.data import HubSource, PathSource
from posttrain.telling import tell
from posttrain.train.given.rows import read_as

LABEL = "data.train"


def streamed(
    source: PathSource | HubSource,
    recipe: Recipe,
    algorithm: Algorithm,
    model: Any,
    reader: Reader,
    passage: Passage,
    teacher: Asked | None,
) -> Stream:
    """The rows of the source, once the first are read.

    Raises:
        RecipeError: the algorithm must know more than the rows of a step, or how long rows are is not known.
        DataError: a row cannot be used, or there is none.
    """
    needs = algorithm.needs
    if needs.rollouts or needs.weight == "advantage":
        what = "asks questions" if needs.rollouts else "makes advantages of the rewards of all rows"
        raise RecipeError(f"data.train.stream: {algorithm.name} {what}, and rows that stream are demonstrations, or pairs.")
    limits = [limit for limit in (recipe.data.max_tokens, context_of(model)) if limit is not None]
    if not limits:
        raise RecipeError(
            "data.train.stream: how long its rows are is not known, and the model has no limit: set data.max_tokens."
        )
    if recipe.data.evaluated:
        tell(
            "stream-overlap",
            f"{LABEL}: it is encoded as it comes, and what it shares with evaluation sets is not told; data.decontaminate: "
            "{on_hit: drop} leaves it out when it comes.",
        )

    def coming(passed: int, report: DataReport) -> Iterator[list[Example]]:
        records = passage.trained(islice(read(source), passed, None))
        return reader.stream(records, report, **read_as(needs), teacher=teacher)

    return Stream(coming, block=source.shuffle_buffer, longest=min(limits), seed=recipe.seed, label=LABEL)
