"""The runs of a study: which there are, where each lies, and its recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import RecipeError
from posttrain.execution.study.config import StudyConfig
from posttrain.execution.study.continual.measures import MEASURE
from posttrain.execution.study.continual.recipes import anchored, task_stages
from posttrain.recipe.code import check_permitted
from posttrain.recipe.recipe import Recipe, read_recipe
from posttrain.recipe.resolve.over import OF_THE_TASK, over
from posttrain.recipe.source import YamlSource
from posttrain.settings.doors.permissions import Permissions
from posttrain.settings.evaluation import EvalConfig


@dataclass(frozen=True, slots=True)
class Run:
    """One cell: a start model, an algorithm and a seed, at a learning rate."""

    start: str
    algorithm: str
    seed: int
    learning_rate: float
    folder: Path


class Matrix:
    """All runs of a study and their recipes.

    Args:
        study: from `load_study`.
    """

    def __init__(self, study: StudyConfig) -> None:
        self._study, self._folder = study, Path(study.output_dir)

    def tuning(self) -> Iterator[Run]:
        """The runs that learning rates are chosen by."""
        for start, algorithm in self.pairs():
            for rate in self._study.tuning.learning_rates:
                for seed in self._study.tuning.seeds:
                    folder = self._folder / "tuning" / start / algorithm / f"lr-{rate:g}" / f"seed-{seed}"
                    yield Run(start, algorithm, seed, rate, folder)

    def final(self, start: str, algorithm: str, rate: float) -> Iterator[Run]:
        """The runs that are reported, at the learning rate that was chosen."""
        for seed in self._study.seeds:
            yield Run(start, algorithm, seed, rate, self._folder / "runs" / start / algorithm / f"seed-{seed}")

    def check(self, permissions: Permissions) -> str:
        """Checks the recipe of every run, and says how many there are.

        Raises:
            RecipeError: one of them is wrong, runs code that is not allowed, or does not measure what the study asks for.
        """
        starts = [self.start_recipe(start, seed) for start, seed in self.begun()]
        tuning = [self._checked(run) for run in self.tuning()]
        rate = self._study.tuning.learning_rates[0]
        final = [self._checked(run) for pair in self.pairs() for run in self.final(*pair, rate)]
        lines = [line for pair in self.pairs() for run in self.final(*pair, rate) if (line := self.line(run)) is not None]
        for recipe in (*starts, *tuning, *final, *lines):
            check_permitted(recipe, permissions)
        return f"{len(starts)} start models, {len(tuning)} runs to choose learning rates by, {len(final)} to report."

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every start with every algorithm."""
        for start in self._study.starts:
            for algorithm in self._study.algorithms:
                yield start, algorithm

    def begun(self) -> Iterator[tuple[str, int]]:
        """Every start that is trained, with every seed that needs one of its own."""
        for start, changes in self._study.starts.items():
            for seed in (*self._study.tuning.seeds, *self._study.seeds) if _is_trained(changes) else ():
                yield start, seed

    def start_folder(self, start: str, seed: int) -> Path:
        """Of a start model that is trained."""
        return self._folder / "starts" / start / f"seed-{seed}"

    def start_model(self, start: str, seed: int) -> str:
        """The folder or the name of the model that runs begin from.

        Raises:
            RecipeError: it is neither trained nor has it a name.
        """
        changes = self._study.starts[start]
        if _is_trained(changes):
            return str(self.start_folder(start, seed) / "final")
        model = _merged(self._study.recipe, changes).get("model")
        if not isinstance(model, dict) or "name" not in model:
            raise RecipeError(f"starts.{start}: give the algorithm or the stages that train it, or model: {{name: …}}")
        return str(model["name"])

    def start_recipe(self, start: str, seed: int) -> Recipe:
        """How a start model is trained.

        Raises:
            RecipeError: names the start, and what is wrong.
        """
        values = {**self._of_start(start, seed), "output_dir": str(self.start_folder(start, seed))}
        return read_recipe(YamlSource(f"starts.{start}", values, {}, folder=self._study.folder))

    def recipe(self, run: Run) -> Recipe:
        """How a run trains. A round gets an equal part of the budget, a stage its
        share of that, and the run's learning rate times its rate.

        Raises:
            RecipeError: names the algorithm, and what is wrong.
        """
        return self._read(run, self._whole(run))

    def line(self, run: Run) -> Recipe | None:
        """How the models on the line from an earlier one to a run's last are made and evaluated; None: it is not asked for.

        Raises:
            RecipeError: as `recipe`.
        """
        sequence = self._study.continual
        if sequence is None or sequence.anchor is None:
            return None
        return self._read(run, anchored(sequence.anchor, self._whole(run), str(run.folder)))

    def _whole(self, run: Run) -> dict[str, Any]:
        values = {**self._of_run(run), "output_dir": str(run.folder)}
        return {**values, "model": {**values["model"], "name": self.start_model(run.start, run.seed)}}

    def _read(self, run: Run, values: dict[str, Any]) -> Recipe:
        of_tasks = "" if self._study.continual is None else " over continual.tasks"
        return read_recipe(YamlSource(f"algorithms.{run.algorithm}{of_tasks}", values, {}, folder=self._study.folder))

    def key(self, run: Run) -> str:
        """Of what the study says of a run and of its start model, wherever they lie. Contents of files have no part in it."""
        trained = _is_trained(self._study.starts[run.start])
        start = self._of_start(run.start, run.seed) if trained else self.start_model(run.start, run.seed)
        parts = [start, self._of_run(run), self._study.drift]
        if self._study.continual is not None and self._study.continual.anchor is not None:
            parts.append(self._study.continual.anchor.model_dump())
        said = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:16]

    def _of_start(self, start: str, seed: int) -> dict[str, Any]:
        return {**_merged(self._study.recipe, self._study.starts[start]), "seed": seed}

    def _of_run(self, run: Run) -> dict[str, Any]:
        changes = self._study.algorithms[run.algorithm]
        values = _merged(self._study.recipe, {key: value for key, value in changes.items() if key != "stages"})
        kept = {key: value for key, value in values.get("model", {}).items() if key in OF_THE_TASK}
        values |= {"model": kept, "seed": run.seed}
        one, stages = 1 / _rounds(changes), changes.get("stages")
        if self._study.continual is not None:
            values, stages = task_stages(self._study.continual, values)
        if stages is not None:
            values["stages"] = [self._stage(stage, run, one, len(stages)) for stage in stages]
        else:
            values["training"] = {**values.get("training", {}), **self._training(run, one)}
        return values

    def _checked(self, run: Run) -> Recipe:
        recipe, asked = self.recipe(run), [("tuning.metrics", metric) for metric in self._study.tuning.metrics]
        if self._study.earlier is not None:
            asked.append(("earlier", f"{self._study.earlier}/pass@1"))
        if self._study.continual is not None:
            asked += [("continual", f"{name}/{MEASURE}") for name in self._study.continual.sets.values()]
        sampled, has_loss = sampled_metrics(recipe.eval), recipe.eval.loss and recipe.rollout is None
        for key, metric in asked:
            name = metric.partition("/")[2]
            if name not in sampled and (not has_loss or "@" in name):
                known = ", ".join(sampled) or "none, without eval.samples"
                raise RecipeError(f"{key}: {metric} is not measured in runs of {run.algorithm}; there are {known}")
        return recipe

    def _stage(self, stage: dict[str, Any], run: Run, of_round: float, stages: int) -> dict[str, Any]:
        own = {key: value for key, value in stage.items() if key not in ("share", "rate")}
        training = self._training(run, stage.get("share", 1 / stages) * of_round)
        training["learning_rate"] *= stage.get("rate", 1.0)
        return {**own, "training": {**own.get("training", {}), **training}}

    def _training(self, run: Run, share: float) -> dict[str, Any]:
        budget = {name: limit for name, limit in self._study.budget.model_dump().items() if limit is not None}
        whole = {name: round(limit * share) if name == "tokens" else limit * share for name, limit in budget.items()}
        return {"learning_rate": run.learning_rate, "budget": whole}


def sampled_metrics(config: EvalConfig) -> list[str]:
    """What an evaluation says of the answers to a set's questions; the names of a validation loss are the algorithm's."""
    if not config.samples:
        return []
    rates = [f"pass@{k}" for k in dict.fromkeys((1, *config.k))]
    return [*rates, f"majority@{config.samples}", "length", "failed_grades", "unparsable", "cut_off"]


def _rounds(changes: dict[str, Any]) -> int:
    """How many there are; what is no number, the recipe's checks will name."""
    rounds = changes.get("rounds")
    times = rounds.get("times") if isinstance(rounds, dict) else None
    return times if isinstance(times, int) and times > 0 else 1


def _is_trained(start: dict[str, Any]) -> bool:
    return "algorithm" in start or "stages" in start


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {**base, **{key: over(key, base.get(key), value) for key, value in changes.items()}}
