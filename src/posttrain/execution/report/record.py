"""All that the folder of a run tells, stage by stage, as it stands: finished, broken off or under way."""

from __future__ import annotations

import glob
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from posttrain.errors import CheckpointError
from posttrain.execution.folder.recipe_file import kept_values
from posttrain.execution.folder.starts import STARTS
from posttrain.execution.study.outcome import stages
from posttrain.train.watch.records import JsonLines
from posttrain.train.watch.redaction import redacted

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """One stage, or a run that has none.

    steps, evaluations: lines of metrics.jsonl and eval.jsonl, what is not finite as NaN. warnings, left_out: lines of these
    files. starts: of the command, each with its time and versions.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    steps: Sequence[Line]
    evaluations: Sequence[Line]
    warnings: Sequence[Line]
    left_out: Sequence[Line]
    starts: Sequence[Line]

    @classmethod
    def of(cls, folder: Path, name: str) -> Stage:
        """Of its folder."""
        return cls(
            name,
            folder,
            _recipe(folder),
            JsonLines(folder / "metrics.jsonl").of_steps(),
            JsonLines(folder / "eval.jsonl").of_steps(),
            JsonLines(folder / "warnings.jsonl").read(),
            JsonLines(folder / "left_out.jsonl").read(),
            JsonLines(folder / STARTS).read(),
        )

    @property
    def algorithm(self) -> str:
        """Its name in the recipe; of a stage that merges models, that and how."""
        if self.merges:
            return f"merge-{self.recipe['merge'].get('method')}"
        return str((self.recipe.get("algorithm") or {}).get("name", "?"))

    @property
    def merges(self) -> bool:
        """Whether it merges models, and makes no step."""
        return isinstance(self.recipe.get("merge"), Mapping)

    @property
    def is_finished(self) -> bool:
        """Whether its final model is there."""
        return (self.folder / "final").is_dir()

    @property
    def last_step(self) -> int:
        """0 where none was made."""
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def planned(self) -> int | None:
        """Its steps, where the recipe says them."""
        return None if self.merges else (self.recipe.get("training") or {}).get("max_steps")

    def sets(self) -> list[str]:
        """The evaluation sets whose answers are kept."""
        names = {_set_of(path) for path in (self.folder / "completions").glob("eval-*-step-*.jsonl")}
        return sorted(names)

    def answers(self, name: str) -> dict[int, list[dict[str, Any]]]:
        """The answers to an evaluation set, by step."""
        found = (self.folder / "completions").glob(f"eval-{glob.escape(name)}-step-*.jsonl")
        return {_step_of(path): JsonLines(path).read() for path in sorted(found) if _set_of(path) == name}

    def collected(self, at_most: int) -> dict[int, list[dict[str, Any]]]:
        """Completions that were trained on, by step: of the first collection, the last, and some between."""
        paths = sorted((self.folder / "completions").glob("step-*.jsonl"))
        return {_step_of(path): JsonLines(path).read() for path in spread(paths, at_most)}

    @property
    def seconds(self) -> dict[str, float]:
        """Of its steps, by what they were spent on."""
        whole = _sum(self.steps, "step/seconds")
        sampled, synced = (_sum(self.steps, f"rollout/{name}seconds") for name in ("", "sync_"))
        parts = {"sampling and rewards": sampled, "weights to the engine": synced}
        return {"steps": whole, **{name: value for name, value in parts.items() if value}}


@dataclass(frozen=True)
class Record:
    """A run: its stages, and what is common to them."""

    folder: Path
    name: str
    stages: Sequence[Stage]

    @classmethod
    def of(cls, folder: Path) -> Record:
        """Of a run's folder.

        Raises:
            CheckpointError: it is none, or a file in it is no JSON.
        """
        if not (folder / "recipe.yaml").is_file():
            raise CheckpointError(f"{folder} is not the folder of a run: it has no recipe.yaml. Give the output_dir of one.")
        parts = list(stages(folder))
        names = [folder.resolve().name] if parts == [folder] else [part.name.partition("-")[2] for part in parts]
        return cls(folder, folder.resolve().name, [Stage.of(*one) for one in zip(parts, names, strict=True)])

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """As the folder has it."""
        return _recipe(self.folder)

    @cached_property
    def recipe_text(self) -> str:
        """As YAML, without secrets."""
        return yaml.safe_dump(redacted(dict(self.recipe)), sort_keys=False, allow_unicode=True)

    @property
    def state(self) -> str:
        """Finished; or how far it is."""
        if (self.folder / "final").is_dir():
            return "finished"
        begun = [stage for stage in self.stages if stage.steps or (stage.merges and stage.is_finished)] or list(
            self.stages[:1]
        )
        planned = len(self.recipe.get("stages") or ()) or 1
        stage = begun[-1]
        of = f" of {stage.planned}" if stage.planned else ""
        where = f", stage {len(begun)} of {planned}" if planned > 1 else ""
        return f"not finished: step {stage.last_step}{of}{where}"

    @property
    def model(self) -> str:
        """What the first stage starts from."""
        model = (self.stages[0].recipe if self.stages else {}).get("model") or {}
        return str(model.get("name") or f"{(model.get('from_scratch') or {}).get('architecture', 'a model')} from scratch")

    @property
    def start(self) -> Line:
        """The first evaluation."""
        return next((stage.evaluations[0] for stage in self.stages if stage.evaluations), {})

    @property
    def points(self) -> dict[str, Line]:
        """Evaluations at the points that a table shows: the start, and the end of each stage, by title."""
        ends: dict[str, Line] = {}
        for stage in self.stages:
            if stage.evaluations and ((step := stage.evaluations[-1]["step"]) > 0 or stage.merges):
                where = "" if stage.is_finished else f", at step {step}"
                ends[f"after {stage.name}{where}" if len(self.stages) > 1 else f"last{where}"] = stage.evaluations[-1]
        return {"start": self.start, **ends} if self.start else ends

    @property
    def tokens(self) -> dict[str, float]:
        """Of the rows of all steps, of those trained on, and sampled."""
        names = {"in steps": "step/tokens", "trained on": "train/tokens", "sampled": "rollout/tokens"}
        found = {name: sum(_sum(stage.steps, metric) for stage in self.stages) for name, metric in names.items()}
        return {name: value for name, value in found.items() if value}


def told_apart(records: Sequence[Record]) -> list[Record]:
    """The same, with their folders for names where several have one name."""
    names = [record.name for record in records]
    return [one if names.count(one.name) == 1 else replace(one, name=str(one.folder)) for one in records]


def spread(items: Sequence[Any], at_most: int) -> list[Any]:
    """The first, the last, and evenly some between."""
    if len(items) <= at_most:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, at_most - 1))] for i in range(at_most)]


def _recipe(folder: Path) -> Mapping[str, Any]:
    path = folder / "recipe.yaml"
    if not path.is_file():
        return {}
    try:
        found = kept_values(folder, errors="replace")
    except yaml.YAMLError:
        raise CheckpointError(f"{path} is no YAML. Bring the file of the run back.") from None
    return found if isinstance(found, Mapping) else {}


def _step_of(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _set_of(path: Path) -> str:
    return path.stem.removeprefix("eval-").rpartition("-step-")[0]


def _sum(lines: Sequence[Line], name: str) -> float:
    return math.fsum(value for line in lines if math.isfinite(value := line.get(name, 0.0)))
