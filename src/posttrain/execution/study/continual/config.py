"""What a study says of a sequence of tasks. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from posttrain.settings.base import Config, Positive

START = "start"
"""The model that a run begins from, as `anchor.from` names it."""
OF_THE_STUDY = ("name", "from", "merge", "output_dir", "seed", "stages", "rounds", "eval")
"""What a task cannot change of its stage: the sequence gives it, or all stages are evaluated alike."""


class TaskConfig(Config):
    """One task of the sequence: a stage of every run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
    """Of its stage."""
    set: str | None = None
    """The evaluation set of it; that of its name, if not set."""
    train: Annotated[dict[str, Any], Field(min_length=1)]
    """What its stage trains on, as `data.train` of a recipe."""
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of the budget; equal ones, if no task has any."""
    rate: Positive = 1.0
    """A factor of the learning rate."""
    changes: dict[str, Any] = {}
    """What else its stage changes of the recipe."""

    @property
    def evaluated(self) -> str:
        """The evaluation set of it."""
        return self.name if self.set is None else self.set

    @field_validator("changes")
    @classmethod
    def _is_of_the_stage(cls, changes: dict[str, Any]) -> dict[str, Any]:
        if own := [key for key in OF_THE_STUDY if key in changes]:
            raise ValueError(f"{own[0]}: a stage of a sequence has that of the study, and cannot change it")
        if own := [key for key in ("train", "eval", "replay") if key in _keys(changes, "data")]:
            place = {"train": "train of the task", "eval": "recipe.data.eval", "replay": "data.replay of an algorithm"}
            raise ValueError(f"data.{own[0]}: it is said by {place[own[0]]}")
        return changes


class AnchorConfig(Config):
    """Models on the line from an earlier one to the last of a run (WiSE-FT, arXiv:2109.01903): without any training, they
    trade what is new for what was there before. What protects from forgetting has to be better than that.
    """

    origin: Annotated[str, Field(alias="from")] = START
    """The earlier one: start, or that which a task has left."""
    alphas: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = [0.25, 0.5, 0.75]
    """Where on the line: 0 is the earlier model, 1 the last, and both are evaluated in any case."""

    @field_validator("alphas")
    @classmethod
    def _are_different(cls, alphas: list[float]) -> list[float]:
        if len(set(alphas)) < len(alphas):
            raise ValueError("each once is expected")
        return sorted(alphas)


class ContinualConfig(Config):
    """Every run trains on the tasks one after another; after each, all of them are evaluated."""

    tasks: Annotated[list[TaskConfig], Field(min_length=1)]
    """In the order in which they are trained on."""
    general: list[str] = []
    """Evaluation sets of what no task trains on."""
    anchor: AnchorConfig | None = None
    """The line from an earlier model to the last, evaluated on all sets; none, if not set."""

    @property
    def sets(self) -> dict[str, str]:
        """By task, its evaluation set."""
        return {task.name: task.evaluated for task in self.tasks}

    @property
    def shares(self) -> list[float]:
        """Of the budget, of each task."""
        given = [task.share for task in self.tasks if task.share is not None]
        return given or [1 / len(self.tasks)] * len(self.tasks)

    @property
    def old(self) -> list[str]:
        """The sets of what the earlier model of `anchor` has learnt, or of what is general where it is the start."""
        return list(self.sets.values())[: self._learnt] or self.general

    @property
    def new(self) -> list[str]:
        """The sets of what was learnt since."""
        return list(self.sets.values())[self._learnt :]

    @property
    def _learnt(self) -> int:
        """Tasks, up to the earlier model of `anchor`."""
        origin = START if self.anchor is None else self.anchor.origin
        return 0 if origin == START else list(self.sets).index(origin) + 1

    @field_validator("tasks")
    @classmethod
    def _are_a_sequence(cls, tasks: list[TaskConfig]) -> list[TaskConfig]:
        if len(tasks) < 2:
            raise ValueError("one task is no sequence, and nothing could be forgotten: give two or more")
        for what, names in {"name": [task.name for task in tasks], "set": [task.evaluated for task in tasks]}.items():
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"two tasks have the {what} {twice[0]}: each has its own")
        if START in [task.name for task in tasks]:
            raise ValueError(f"{START} is the model that a run begins from: take another name for the task")
        shares = [task.share for task in tasks if task.share is not None]
        if shares and (len(shares) < len(tasks) or abs(sum(shares) - 1) > 1e-6):
            raise ValueError(
                f"share: {len(shares)} of {len(tasks)} tasks have one, and together {sum(shares):g}: give every task its "
                "share, together 1, or none"
            )
        return tasks

    @model_validator(mode="after")
    def _has_something_old(self) -> ContinualConfig:
        if trained := [name for name in self.general if name in self.sets.values()]:
            raise ValueError(f"general: {trained[0]} is the set of a task: general is what no task trains on")
        if self.anchor is None:
            return self
        origins = [START, *list(self.sets)[:-1]]
        if self.anchor.origin not in origins:
            raise ValueError(
                f"anchor.from: {self.anchor.origin} is neither {START} nor a task before the last ({', '.join(origins[1:])})"
            )
        if self.anchor.origin == START and not self.general:
            raise ValueError(
                "anchor.from: of what the start model knows no set is named, so that nothing is old there: name one in "
                f"general, or a task here ({', '.join(origins[1:])})"
            )
        return self


def check_sequence(
    continual: ContinualConfig, recipe: Mapping[str, Any], starts: Sequence[Mapping[str, Any]], arms: Mapping[str, Any]
) -> None:
    """Whether a study's other parts leave the sequence to its tasks.

    Args:
        continual: the sequence.
        recipe: what all runs share.
        starts: what each start model changes.
        arms: what each algorithm changes, by its name.

    Raises:
        ValueError: a task has no evaluation set; an algorithm has stages, rounds or data of its own; or nothing trains on
            what the shared recipe says.
    """
    data = _keys(recipe, "data", "recipe.")
    sets = _keys(data, "eval", "recipe.data.")
    asked = {f"continual.tasks.{i}.set": task.evaluated for i, task in enumerate(continual.tasks)}
    asked |= {f"continual.general.{i}": name for i, name in enumerate(continual.general)}
    for key, name in asked.items():
        if name not in sets:
            raise ValueError(f"{key}: {name} is of no set in recipe.data.eval ({', '.join(sets) or 'none'})")
    for name, changes in arms.items():
        if own := [key for key in ("stages", "rounds") if key in changes]:
            raise ValueError(f"algorithms.{name}.{own[0]}: the stages of a sequence are its tasks: leave it out")
        if own := [key for key in ("train", "eval") if key in _keys(changes, "data", f"algorithms.{name}.")]:
            raise ValueError(
                f"algorithms.{name}.data.{own[0]}: all algorithms train on the same tasks, and are evaluated alike"
            )
    trained = [start for start in starts if "algorithm" in start or "stages" in start]
    if "train" in data and all("train" in _keys(start, "data", "starts: ") for start in trained):
        raise ValueError("recipe.data.train: tasks and start models have their own, and nothing trains on it: leave it out")


def _keys(values: Mapping[str, Any], key: str, place: str = "") -> Mapping[str, Any]:
    """What stands at a key, which has keys of its own; none, where nothing does."""
    found = values.get(key, {})
    if not isinstance(found, dict):
        raise ValueError(f"{place}{key}: keys are expected here, not {found}")
    return found
