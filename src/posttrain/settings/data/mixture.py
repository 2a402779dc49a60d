"""Several sources that are trained on together: how much of each, and in which part of the run. No torch here."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from posttrain.settings.base import Config, Count
from posttrain.settings.data.sources import EnvironmentSource, GymSource, HubSource, PathSource, Source, TaskSource, kind_of

OWN, REPLAY = "train", "replay"
"""What rows of earlier stages are called as a source, `replay`, and beside them those of a stage that has one source."""


def _more_than_nothing(weight: float) -> float:
    if weight <= 0:
        raise ValueError(f"a weight is more than 0, and {weight:g} would never be read: leave the source out")
    return weight


Weight = Annotated[float, AfterValidator(_more_than_nothing)]


class _Weighed(Config):
    weight: Weight = 1.0
    """How much of it is read, by the sum of all weights; it need not be 1."""


class MixedPath(PathSource, _Weighed):
    """Files, of which so much is read."""


class MixedHub(HubSource, _Weighed):
    """A data set of the hub, of which so much is read."""


class MixedTask(TaskSource, _Weighed):
    """A generated task, of which so much is read."""


MixedSource = Annotated[
    Annotated[MixedPath, Tag("path source")]
    | Annotated[MixedHub, Tag("hub source")]
    | Annotated[MixedTask, Tag("task source")],
    Discriminator(
        kind_of, custom_error_type="source", custom_error_message="a source of a mixture has one of the keys path, hub, task"
    ),
]


class Phase(Config):
    """A part of the run, and what is read in it."""

    until: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The share of training.max_steps that are done when it ends; the last phase ends at 1."""
    weights: Annotated[dict[str, Weight], Field(min_length=1)] | None = None
    """Of each source that is read in it, in place of its own; one that is not named is not read. The sources' own, if not
    set."""


class Mixture(Config):
    """Sources by names of yours."""

    mix: dict[str, MixedSource]
    """Each with its own columns, format, limit, and its weight."""
    unit: Literal["rows", "tokens"] = "rows"
    """Of what weights are shares: of rows (questions, where these are asked), or of the tokens that they have on average, of
    prompt and completion, or of the prompt of a question."""
    exhausted: Literal["repeat", "stop"] = "repeat"
    """What becomes of a source of which all rows are read: it begins again in another order, or the run may not need more."""
    phases: list[Phase] = []
    """One after another; the whole run is one, if there are none."""

    @model_validator(mode="before")
    @classmethod
    def _is_no_source_as_well(cls, values: Any) -> Any:
        both = [key for key in ("path", "hub", "task") if isinstance(values, dict) and key in values]
        if both:
            raise ValueError(f"{both[0]} names one source, and mix several: put it into mix, under a name")
        return values

    @model_validator(mode="after")
    def _names_sources(self) -> Mixture:
        if not self.mix:
            raise ValueError("mix: it has no source: {NAME: {path: …, weight: 1}, …} is expected")
        if odd := [name for name in self.mix if not re.fullmatch(r"[A-Za-z0-9_-]+", name)]:
            raise ValueError(f"mix: {odd[0]!r}: a name has letters, digits, _ and -")
        return self

    @model_validator(mode="after")
    def _phases_follow_one_another(self) -> Mixture:
        for number, phase in enumerate(self.phases):
            if unknown := [name for name in phase.weights or () if name not in self.mix]:
                raise ValueError(f"phases.{number}.weights: {unknown[0]} is no source of mix ({', '.join(self.mix)})")
        ends = [phase.until for phase in self.phases]
        if ends and (ends[-1] != 1 or any(one >= other for one, other in pairwise(ends))):
            told = ", ".join(f"{end:g}" for end in ends)
            raise ValueError(f"phases: until is {told}: each must be more than the one before, and the last 1 (leave it out)")
        read = {name for phase in self.phases for name in phase.weights or self.mix}
        if self.phases and (never := [name for name in self.mix if name not in read]):
            raise ValueError(f"phases: {never[0]} is read in none of them: leave it out of mix, or give it a weight")
        return self

    @property
    def of_one_task(self) -> TaskSource | None:
        """One of its sources, where all are the same generated task, whose verifier is that of all."""
        first, *others = self.mix.values()
        same = isinstance(first, TaskSource) and all(isinstance(one, TaskSource) and one.task == first.task for one in others)
        return first if same and isinstance(first, TaskSource) else None


def _train_kind(given: Any) -> str | None:
    return (
        "mixture of sources" if isinstance(given, Mixture) or (isinstance(given, dict) and "mix" in given) else kind_of(given)
    )


Train = Annotated[
    Annotated[PathSource, Tag("path source")]
    | Annotated[HubSource, Tag("hub source")]
    | Annotated[TaskSource, Tag("task source")]
    | Annotated[GymSource, Tag("gym source")]
    | Annotated[EnvironmentSource, Tag("environment source")]
    | Annotated[Mixture, Tag("mixture of sources")],
    Discriminator(
        _train_kind,
        custom_error_type="source",
        custom_error_message="a source has one of the keys path, hub, task, gym, environment; several are mix: {NAME: "
        "{path: …, …}}",
    ),
]


class Earlier(Config):
    """What an earlier stage was trained on."""

    train: Train
    """Its sources."""
    eval_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What it held out of them, which is not replayed either."""


class Replay(Config):
    """Rows of what earlier stages were trained on, as one source more."""

    of: list[str] | Literal["all"] = "all"
    """Earlier stages, by name or by folder (1-sft); all of them, if not set."""
    share: Annotated[float, Field(gt=0, lt=1)]
    """Of what is read in each phase, in the unit of the mixture."""
    buffer: Count | None = None
    """So many records, drawn evenly from all of theirs, once; all, if not set."""
    sources: dict[str, Earlier] = {}
    """By their folders, what these stages were trained on: filled in from `of`."""

    @model_validator(mode="after")
    def _is_of_something(self) -> Replay:
        if not self.sources:
            raise ValueError("there is nothing to replay: it brings rows of earlier stages into a later one (stages:)")
        return self


def sources_in(train: Source | Mixture) -> dict[str, Source]:
    """The sources by their names; one by itself has none."""
    return dict(train.mix) if isinstance(train, Mixture) else {"": train}
