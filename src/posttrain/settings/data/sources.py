"""Where rows come from: files, the hub, generated tasks. No torch, transformers or datasets here."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from posttrain.settings.base import Config, Count, Share

Column = Literal[
    "prompt",
    "completion",
    "messages",
    "text",
    "text_prefix",
    "prompts",
    "completions",
    "chosen",
    "rejected",
    "reference",
    "answer",
    "solution",
    "demonstration",
    "tools",
    "calls",
    "label",
    "weight",
    "weights",
    "reward",
    "advantage",
    "value",
    "forget",
]
Format = Literal["messages", "sharegpt", "alpaca"]


class _Source(Config):
    columns: dict[Column, str] = {}
    """Ours: theirs. A name that is not mapped is looked up as it is."""
    unused: list[str] = []
    """Theirs that are not to be read, as if they were not there: nothing is said of them."""
    format: Format | None = None
    """How the rows are written; each by its shape if not set. messages: in columns of ours."""
    limit: Count | None = None
    """The first rows only."""
    stream: bool = False
    """Rows are read and encoded as training asks for them, so that the first step waits for none but the first; of data.train
    alone. How many there are is then not known."""
    shuffle_buffer: Count = 10_000
    """Of a source that streams: rows come in their own order, but for that within each block of so many, which is by the
    seed. 1: in their own order."""

    @model_validator(mode="after")
    def _shuffles_what_streams(self) -> Self:
        if not self.stream and self.shuffle_buffer != _Source.model_fields["shuffle_buffer"].default:
            raise ValueError("shuffle_buffer: all rows of a source are in one order where it does not stream: leave it out")
        return self


class PathSource(_Source):
    """Files: `.jsonl`, `.json`, `.csv`, `.tsv` or `.parquet`."""

    path: str | list[str]
    """Of one, a folder of them, a pattern such as data/part-*.jsonl, or a list of these. What is not found from here
    is looked for beside the recipe's file."""

    @field_validator("path", mode="before")
    @classmethod
    def _names_files(cls, given: Any) -> Any:
        if not given or not all(isinstance(one, str) for one in (given if isinstance(given, list) else [given])):
            raise ValueError(f"a file, a folder, a pattern or a list of these is expected, not {given!r:.60}")
        return given

    @field_validator("path")
    @classmethod
    def _is_here_or_beside_the_recipe(cls, given: str | list[str], info: ValidationInfo) -> str | list[str]:
        folder = (info.context or {}).get("folder")
        if folder is None:
            return given
        return _here_or_in(folder, given) if isinstance(given, str) else [_here_or_in(folder, one) for one in given]


def _here_or_in(folder: Path, path: str) -> str:
    is_here = glob.glob(os.path.expanduser(path)) or os.path.exists(path)
    beside = os.path.join(glob.escape(os.path.abspath(folder)), path)
    return path if is_here or not glob.glob(beside) else os.path.join(os.path.abspath(folder), path)


class HubSource(_Source):
    """A data set of the hub."""

    hub: str
    """Its name, as OWNER/NAME."""
    config: str | None = None
    """Which of its configurations, where it has several."""
    split: str = "train"
    """Which of its splits."""
    revision: str | None = None
    """A branch, tag or commit."""

    @property
    def loaded(self) -> dict[str, str | None]:
        """The options of `datasets.load_dataset`."""
        return {"name": self.config, "split": self.split, "revision": self.revision}


class TaskSource(Config):
    """A generated task of `posttrain.data.tasks`."""

    task: Literal["chain", "running_totals", "countdown"]
    """Which task."""
    split: Literal["train", "validation", "held_out", "ood"] = "train"
    """Questions of one split are in no other; those of ood are harder than any of train."""
    rows: Count
    """How many questions."""
    hard: Share = 0.0
    """The share of harder questions, which the split ood has none of: all of its own are harder still."""
    wrong: Share = 0.0
    """The share of demonstrations that are wrong: a model that learns from them is right about as often as they are. Where
    there are any, rows have a reward, 1 or 0, a value, the mean of these, and forget, true where they are wrong."""
    seed: int = 0
    """Other questions for another one."""


class GymSource(Config):
    """Questions of reasoning-gym, whose verifier judges the answers; needs the extra `reasoning-gym`."""

    gym: str
    """Its name there, such as chain_sum."""
    rows: Annotated[int, Field(ge=1, le=2**20)]
    """How many questions."""
    seed: Annotated[int, Field(ge=0, lt=2**12)] = 0
    """Other questions for another one, but for those that the gym itself draws twice."""
    options: dict[str, Any] = {}
    """What the gym can be told, such as min_terms; its own defaults for what is not."""

    @field_validator("options")
    @classmethod
    def _leave_what_has_a_key(cls, options: dict[str, Any]) -> dict[str, Any]:
        if own := options.keys() & {"seed", "size"}:
            raise ValueError(f"{min(own)} is a key of its own: {'rows' if 'size' in own else 'seed'}")
        return options


class Tasks(Config):
    """Tasks of the recipe's environment."""

    rows: Count
    """How many."""
    split: Literal["train", "validation", "held_out"] = "train"
    """Tasks of one split are in no other, as far as the environment has enough of them."""
    seed: int = 0
    """Other tasks for another one."""


class EnvironmentSource(Config):
    """Tasks that the recipe's environment makes (`environment`), and judges."""

    environment: Tasks
    """How many, and which."""


Generated = TaskSource | GymSource
"""What is made here, with a verifier of its own."""


def kind_of(source: Any) -> str | None:
    """Which union member a source is of, by its keys."""
    keys = source if isinstance(source, dict) else type(source).model_fields if isinstance(source, Config) else ()
    return next((f"{kind} source" for kind in ("path", "hub", "task", "gym", "environment") if kind in keys), None)


Source = Annotated[
    Annotated[PathSource, Tag("path source")]
    | Annotated[HubSource, Tag("hub source")]
    | Annotated[TaskSource, Tag("task source")]
    | Annotated[GymSource, Tag("gym source")]
    | Annotated[EnvironmentSource, Tag("environment source")],
    Discriminator(
        kind_of,
        custom_error_type="source",
        custom_error_message="a source has one of the keys path, hub, task, gym, environment",
    ),
]
