"""The models on the line from an earlier one to the last of a run: what each keeps of the old, and has of the new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from posttrain.errors import RecipeError
from posttrain.execution.study.continual.config import START, ContinualConfig
from posttrain.execution.study.continual.measures import MEASURE
from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Point:
    """A model on the line, by α; its mean accuracy on the sets of what is old, and on those of what is new."""

    alpha: float
    old: float
    new: float


def line_of(continual: ContinualConfig, run: Run, outcome: Outcome) -> list[Point]:
    """The points of a run's line, with the earlier model (α = 0) and the last (α = 1) as the run itself evaluated them.

    Raises:
        RecipeError: a model of the line was not evaluated.
    """
    assert continual.anchor is not None
    origin = continual.anchor.origin
    found = {0.0: outcome.before if origin == START else outcome.stages.get(origin, {}), 1.0: outcome.after}
    found |= {alpha: outcome.line.get(f"{alpha:g}", {}) for alpha in continual.anchor.alphas}

    def mean(alpha: float, sets: Sequence[str]) -> float:
        names = [f"eval/{name}/{MEASURE}" for name in sets]
        if lacking := [name for name in names if name not in found[alpha]]:
            raise RecipeError(f"{run.folder}: the model at alpha {alpha:g} of its line has no {lacking[0]}.")
        return float(np.mean([found[alpha][name] for name in names]))

    return [Point(alpha, mean(alpha, continual.old), mean(alpha, continual.new)) for alpha in sorted(found)]


def above(point: Point, line: Sequence[Point]) -> float:
    """How much more of the new a model has than the best one on a line that keeps as much of the old; of one that keeps more
    than all of these, than the one that keeps most.

    Between two points of the line, accuracies are taken to be on straight lines.
    """
    kept = min(point.old, max(one.old for one in line))
    reached = [one.new for one in line if one.old >= kept]
    for one, other in pairwise(line):
        if min(one.old, other.old) < kept < max(one.old, other.old):
            reached.append(one.new + (other.new - one.new) * (kept - one.old) / (other.old - one.old))
    return point.new - max(reached)
