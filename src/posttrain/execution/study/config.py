"""What a study says: what all its runs share, and what each of them changes. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from posttrain.errors import RecipeError
from posttrain.execution.study.continual.config import ContinualConfig, check_sequence
from posttrain.recipe.faults import sentence
from posttrain.recipe.source import YamlSource
from posttrain.settings.base import Config
from posttrain.settings.training import Budget

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+-]+$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Tuning(Config):
    """How the learning rate of each algorithm is chosen: the best mean of a metric over the seeds, from one grid for all."""

    learning_rates: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    metrics: Annotated[list[str], Field(min_length=1)]
    """`<set>/<name>` of evaluations, larger is better; their mean is taken."""


class StudyConfig(Config):
    """A matrix of runs: start models × algorithms × seeds, with the same model, data, budget and evaluation."""

    recipe: dict[str, Any]
    """What all runs share, as in a recipe, without algorithm, seed and output_dir."""
    starts: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """Start models: what the recipe that trains each of them changes. Each is trained once for a seed."""
    algorithms: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    """What each algorithm's recipe changes; one with stages gives each its `share` of the budget (equal ones, if none is
    given) and its `rate`, a factor of the learning rate (1). Of one with rounds each has an equal part of it."""
    budget: Budget
    tuning: Tuning
    seeds: Annotated[list[Seed], Field(min_length=2)]
    continual: ContinualConfig | None = None
    """A sequence of tasks that every run trains on, and what it keeps of each; without it all train on `recipe.data`."""
    earlier: str | None = None
    """A set of an earlier task, whose accuracy before and after is shown."""
    drift: str | None = None
    """A set on whose questions KL from the start model and entropy are measured."""
    baseline: Name | None = None
    """An algorithm that the others are held against: run by run, of the same start model and seed."""
    shown: list[str] = []
    """What tables show besides: `<set>/<name>` of the last evaluation, or a metric of steps, as its mean over those that
    have it. Runs may lack it."""
    processes: Annotated[int, Field(ge=1)] = 1
    """Runs at a time; the cores are shared out."""
    output_dir: Annotated[str, Field(min_length=1)]
    _folder: Path | None = PrivateAttr(None)

    @property
    def folder(self) -> Path | None:
        """Of its file, to which paths of code are relative."""
        return self._folder

    @field_validator("recipe")
    @classmethod
    def _is_shared(cls, recipe: dict[str, Any]) -> dict[str, Any]:
        own = {"algorithm", "seed", "output_dir", "stages"} & recipe.keys()
        if own:
            raise ValueError(f"{', '.join(sorted(own))}: every run has its own, given by starts, algorithms and seeds")
        return recipe

    @model_validator(mode="after")
    def _keeps_tuning_apart(self) -> StudyConfig:
        if set(self.seeds) & set(self.tuning.seeds):
            raise ValueError("tuning.seeds: they must be others than seeds, so that what is chosen is not what is reported")
        return self

    @model_validator(mode="after")
    def _is_held_against_one_of_its_own(self) -> StudyConfig:
        if self.baseline is not None and self.baseline not in self.algorithms:
            raise ValueError(f"baseline: {self.baseline} is none of algorithms ({', '.join(self.algorithms)})")
        return self

    @model_validator(mode="after")
    def _is_a_sequence(self) -> StudyConfig:
        if self.continual is not None:
            check_sequence(self.continual, self.recipe, list(self.starts.values()), self.algorithms)
        return self

    @model_validator(mode="after")
    def _measures_what_there_is(self) -> StudyConfig:
        data = self.recipe.get("data")
        sets: Mapping[str, Any] = data.get("eval", {}) if isinstance(data, dict) else {}
        named = [("earlier", self.earlier), ("drift", self.drift), *(("tuning.metrics", m) for m in self.tuning.metrics)]
        for key, value in named:
            if value is not None and value.split("/")[0] not in sets:
                raise ValueError(f"{key}: {value} is of no set in recipe.data.eval ({', '.join(sets) or 'none'})")
        return self


def load_study(path: str | Path) -> StudyConfig:
    """Reads and checks a study; the recipes of its runs are checked by `Matrix.check`.

    Raises:
        RecipeError: with a line for each fault.
    """
    source = YamlSource.read(Path(path))
    try:
        study = StudyConfig.model_validate(source.values)
    except ValidationError as error:
        raise RecipeError("\n".join(sentence(source, fault, whole="study") for fault in error.errors())) from None
    study._folder = source.folder
    return study
