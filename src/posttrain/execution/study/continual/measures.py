"""A sequence of tasks: what each stage of a run leaves of those before it, and gives to those after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posttrain.errors import RecipeError
from posttrain.execution.study.continual.config import ContinualConfig
from posttrain.execution.study.outcome import Outcome, stages
from posttrain.train.watch.records import JsonLines

MEASURE = "pass@1"
"""Of an evaluation set, what stands in the matrix."""
TOLD = (
    "average: after the last stage; forgetting: from the best before it; backward: after the last stage less after the "
    "task's own; forward: before the task's own stage less the start; general: the last less the start"
)
"""Of what its measures are, for people."""


@dataclass(frozen=True, slots=True)
class Continual:
    """Accuracies after each stage of a run that trains on one task after another.

    tasks: the evaluation set of each, in the order in which they are trained on. general: sets of what is never trained on.
    matrix: [stage][set], first the tasks, then the general ones; its first row is the start model's.
    """

    tasks: tuple[str, ...]
    general: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]

    @property
    def metrics(self) -> dict[str, float]:
        """By name, with R[i][j] the accuracy on task j after stage i of T, and i = 0 the start.

        average: the mean over all j of R[T][j]. forgetting: the mean over j < T of max over i < T of R[i][j], less R[T][j].
        backward: the mean over j < T of R[T][j] - R[j][j]. forward: the mean over j > 1 of R[j - 1][j] - R[0][j]. general:
        the mean over general sets of R[T] - R[0]. One task has neither forgetting nor transfer.
        """
        values = np.asarray(self.matrix, float)
        many = len(self.tasks)
        tasks, general = values[:, :many], values[:, many:]
        last, earlier = tasks[-1], range(many - 1)
        found = {"average": float(last.mean())}
        if many > 1:
            found["forgetting"] = float(np.mean([tasks[:many, j].max() - last[j] for j in earlier]))
            found["backward"] = float(np.mean([last[j] - tasks[j + 1, j] for j in earlier]))
            found["forward"] = float(np.mean([tasks[j, j] - tasks[0, j] for j in range(1, many)]))
        if self.general:
            found["general"] = float((general[-1] - general[0]).mean())
        return found

    @classmethod
    def of(cls, folder: Path, tasks: Mapping[str, str], general: Sequence[str] = (), measure: str = MEASURE) -> Continual:
        """Of the folder of a run.

        Args:
            folder: of a run with stages.
            tasks: by the name of the stage that trains on it, the evaluation set of each task.
            general: sets of what is never trained on.
            measure: of the sets, by its name in eval.jsonl.

        Raises:
            RecipeError: a stage or a measure is not there, or the tasks are in another order than the stages.
        """
        names = {path.name.partition("-")[2]: path for path in stages(folder)}
        for stage in tasks:
            if stage not in names:
                raise RecipeError(f"{folder} has no stage {stage}; there are {', '.join(names)}.")
        if (order := [stage for stage in names if stage in tasks]) != list(tasks):
            raise RecipeError(f"{folder}: the stages run as {', '.join(order)}: name their tasks in this order.")
        lines = {stage: JsonLines(names[stage] / "eval.jsonl").of_steps() for stage in tasks}
        if lacking := [stage for stage, found in lines.items() if not found]:
            raise RecipeError(
                f"{folder}: stage {lacking[0]} has no evaluation: set data.eval for all stages, and eval.samples."
            )
        points = [next(iter(lines.values()))[0], *(found[-1] for found in lines.values())]
        return cls.of_points(str(folder), points, list(tasks.values()), general, measure)

    @classmethod
    def of_points(
        cls,
        where: str,
        points: Sequence[Mapping[str, float]],
        tasks: Sequence[str],
        general: Sequence[str],
        measure: str = MEASURE,
    ) -> Continual:
        """Of evaluations before the first stage and after each, and the sets of the tasks.

        Raises:
            RecipeError: a measure is not there; it begins with where.
        """
        sets = (*tasks, *general)
        for name in sets:
            if not all(f"eval/{name}/{measure}" in point for point in points):
                known = sorted({key.split("/")[1] for point in points for key in point if key.startswith("eval/")})
                raise RecipeError(
                    f"{where}: {name}/{measure} is not in every stage's evaluation; its sets: {', '.join(known)}."
                )
        rows = tuple(tuple(float(point[f"eval/{name}/{measure}"]) for name in sets) for point in points)
        return cls(tuple(tasks), tuple(general), rows)


def over_tasks(continual: ContinualConfig, where: str, outcome: Outcome) -> Continual:
    """The matrix of a study's run, whose folder is where.

    Raises:
        RecipeError: an accuracy was not measured.
    """
    points = [outcome.before, *(outcome.stages.get(task.name, {}) for task in continual.tasks)]
    return Continual.of_points(where, points, list(continual.sets.values()), continual.general)
