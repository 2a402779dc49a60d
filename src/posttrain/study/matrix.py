"""The runs of a study: which there are, where each lies, and its recipe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.recipe import Recipe, read_recipe
from posttrain.resolve import over
from posttrain.study.config import StudyConfig
from posttrain.yaml_source import YamlSource


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

    def check(self) -> str:
        """Checks the recipe of every run, and says how many there are.

        Raises:
            RecipeError: one of them is wrong.
        """
        starts = [self.start_recipe(start, seed) for start, seed in self.begun()]
        tuning = [self.recipe(run) for run in self.tuning()]
        rate = self._study.tuning.learning_rates[0]
        final = [self.recipe(run) for pair in self.pairs() for run in self.final(*pair, rate)]
        return f"{len(starts)} start models, {len(tuning)} runs to choose learning rates by, {len(final)} to report."

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Every start with every algorithm."""
        for start in self._study.starts:
            for algorithm in self._study.algorithms:
                yield start, algorithm

    def begun(self) -> Iterator[tuple[str, int]]:
        """Every start that is trained, with every seed that needs one of its own."""
        for start, changes in self._study.starts.items():
            for seed in (*self._study.tuning.seeds, *self._study.seeds) if "algorithm" in changes else ():
                yield start, seed

    def start_folder(self, start: str, seed: int) -> Path:
        """Of a start model that is trained."""
        return self._folder / "starts" / start / f"seed-{seed}"

    def start_model(self, start: str, seed: int) -> str:
        """The folder or the name of the model that runs begin from."""
        changes = self._study.starts[start]
        if "algorithm" in changes:
            return str(self.start_folder(start, seed) / "final")
        return str(over("model", self._study.recipe.get("model"), changes.get("model"))["name"])

    def start_recipe(self, start: str, seed: int) -> Recipe:
        """How a start model is trained.

        Raises:
            RecipeError: names the start, and what is wrong.
        """
        values = {**_merged(self._study.recipe, self._study.starts[start]), "seed": seed}
        values["output_dir"] = str(self.start_folder(start, seed))
        return read_recipe(YamlSource(f"starts.{start}", values, {}))

    def recipe(self, run: Run) -> Recipe:
        """How a run trains. A stage gets its share of the budget, and the run's learning rate times its rate.

        Raises:
            RecipeError: names the algorithm, and what is wrong.
        """
        changes = self._study.algorithms[run.algorithm]
        values = _merged(self._study.recipe, {key: value for key, value in changes.items() if key != "stages"})
        kept = {
            key: value for key, value in values.get("model", {}).items() if key in ("dtype", "attn_implementation", "adapter")
        }
        values |= {"model": {**kept, "name": self.start_model(run.start, run.seed)}, "seed": run.seed}
        values["output_dir"] = str(run.folder)
        if "stages" in changes:
            values["stages"] = [self._stage(stage, run, len(changes["stages"])) for stage in changes["stages"]]
        else:
            values["training"] = {**values.get("training", {}), **self._training(run, 1.0)}
        return read_recipe(YamlSource(f"algorithms.{run.algorithm}", values, {}))

    def _stage(self, stage: dict[str, Any], run: Run, stages: int) -> dict[str, Any]:
        own = {key: value for key, value in stage.items() if key not in ("share", "rate")}
        training = self._training(run, stage.get("share", 1 / stages))
        training["learning_rate"] *= stage.get("rate", 1.0)
        return {**own, "training": {**own.get("training", {}), **training}}

    def _training(self, run: Run, share: float) -> dict[str, Any]:
        budget = {name: limit for name, limit in self._study.budget.model_dump().items() if limit is not None}
        whole = {name: round(limit * share) if name == "tokens" else limit * share for name, limit in budget.items()}
        return {"learning_rate": run.learning_rate, "budget": whole}


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {**base, **{key: over(key, base.get(key), value) for key, value in changes.items()}}
