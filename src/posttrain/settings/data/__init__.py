"""What a recipe says of its data. No torch, transformers or datasets here."""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.settings.base import Config, Count, Template
from posttrain.settings.data.collect import (
    Chosen,
    Collect,
    FeedbackSampling,
    PairSampling,
    QuestionValue,
    RejectionSampling,
    steps_of,
)
from posttrain.settings.data.generate import Generate
from posttrain.settings.data.mixture import REPLAY, Mixture, Replay, Train, sources_in
from posttrain.settings.data.order import AnyOrder, GrowingOrder
from posttrain.settings.data.sources import (
    Column,
    EnvironmentSource,
    Format,
    Generated,
    GymSource,
    HubSource,
    PathSource,
    Source,
    TaskSource,
)

__all__ = [
    "Column",
    "DataConfig",
    "Decontaminate",
    "Encoding",
    "EnvironmentSource",
    "Format",
    "Generated",
    "GymSource",
    "HubSource",
    "Mixture",
    "PathSource",
    "Replay",
    "Source",
    "TaskSource",
]
TRAIN_SHARE = "train_share"
"""The evaluation set that eval_share makes."""


class Window(Config):
    """How a text that is longer than a row is cut into rows, each token but the first with loss in one of them."""

    length: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a row; max_tokens or the model's own limit if not set, and the whole text where there is neither."""
    stride: Count | None = None
    """How many tokens further the next row begins: what it has in common with the one before stands there as context, without
    loss. All but one token if not set."""

    @model_validator(mode="after")
    def _has_context(self) -> Window:
        if self.stride is not None and self.length is not None and self.stride >= self.length:
            raise ValueError(f"stride: {self.stride} must be less than length, so that every token has one before it")
        return self


class Encoding(Config):
    """How rows become tokens, and what becomes of rows that do not fit."""

    chat_template: bool = True
    """Render prompts and completions with the tokenizer's chat template; False joins them as plain text."""
    prompt_template: Template = "{prompt}"
    """Wraps the prompt's text; its fields are columns."""
    system_prompt: str | None = None
    """A system message before each conversation that has none."""
    chat_template_kwargs: dict[str, Any] = {}
    """Arguments of the chat template, such as enable_thinking."""
    date: datetime.date | None = None
    """The day that a chat template writes, where it writes one; if not set, that on which the run begins, kept to its end."""
    special_tokens: Literal["text", "tokens"] = "text"
    """What the name of a special token in a row's text is: text as any other, or the token."""
    max_prompt_tokens: Count | None = None
    """Of the prompt alone; bounded by max_tokens and the model's limit in any case."""
    max_tokens: Annotated[int, Field(ge=2)] | None = None
    """Of prompt and completion together; the model's own limit if not set."""
    window: Window = Window()
    """Of rows that are a text (a column text)."""
    on_long_prompt: Literal["skip", "raise", "keep_end"] = "skip"
    """Leave the row out, end the run, or cut the prompt's beginning."""
    on_long_completion: Literal["skip", "raise", "cut"] = "skip"
    """Leave the row out, end the run, or cut the completion's end."""
    on_wrong_demonstration: Literal["skip", "keep", "raise"] = "skip"
    """One that the rewards' verdict does not call right; its question stays. on_long_completion holds for one that is longer
    than an answer may be."""
    on_bad_row: Literal["skip", "raise"] = "raise"
    """A row that cannot be read: leave it out, or end the run."""

    @field_validator("chat_template", mode="before")
    @classmethod
    def _is_the_tokenizers(cls, given: Any) -> Any:
        if isinstance(given, str) and given.lower() not in ("true", "false"):
            raise ValueError(
                "true or false: a template of your own belongs to the tokenizer, as chat_template.jinja in its folder"
            )
        return given

    @model_validator(mode="after")
    def _windows_fit(self) -> Encoding:
        if self.window.length is not None and self.max_tokens is not None and self.window.length > self.max_tokens:
            raise ValueError(f"window: length: {self.window.length} is over max_tokens: {self.max_tokens}")
        return self

    @model_validator(mode="after")
    def _system_prompt_has_a_place(self) -> Encoding:
        if not self.chat_template and (self.system_prompt is not None or self.chat_template_kwargs):
            raise ValueError("system_prompt and chat_template_kwargs need chat_template: true")
        return self


class Decontaminate(Config):
    """What evaluation sets share with what is trained on is looked for in any case."""

    n: Annotated[int, Field(ge=2)] = 13
    """Words of a stretch: 13 are hardly ever shared by chance; 8 find more, of short questions."""
    against: list[str] | Literal["eval"] = "eval"
    """Of which sets nothing may be trained on, where that is left out: all of data.eval, or some by their names."""
    on_hit: Literal["report", "drop"] = "report"
    """Of rows that share a question or a stretch of its words: say how many, or leave them out."""


class DataConfig(Encoding):
    """Where the rows come from, and how they become tokens."""

    train: Train
    """What is trained on: one source, or a mixture of several."""
    replay: Replay | None = None
    """Rows of earlier stages among those of a later one."""
    eval: dict[str, Source] = {}
    """Sets that are evaluated on, by names of yours."""
    eval_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """About this share of train's records is not trained on, and is the set train_share: chosen by what a record says, and so
    the same whatever its place."""
    demonstrations: Source | None = None
    """A set of its own, for algorithms that train on one beside the questions."""
    decontaminate: Decontaminate = Decontaminate()
    """What is done about rows of training that stand in evaluation sets too."""
    order: AnyOrder | None = None
    """In which order train is read, pass by pass, in place of a random one."""
    collect: Collect | None = None
    """Sampled before training, by one step or by several, in order. Of the start model's answers, rif keeps questions that it
    can answer, rejection_sampling makes demonstrations of right ones, value says what each question is worth; generate makes
    rows of what it or another model writes. Where there is an environment they are episodes, and relabel, pairs and feedback
    are made of these."""
    earlier_rounds: list[str] | None = None
    """The folders of the rounds before, whose made rows are trained on as well: filled in where rounds accumulate them."""

    @model_validator(mode="after")
    def _writes_rows_of_one_source(self) -> DataConfig:
        if self.generates and (self.replay is not None or isinstance(self.train, Mixture)):
            raise ValueError(
                "collect: generate, or several steps, make rows of one source, and train is a mixture, or has replay: make "
                "them in a run before this one, or take one source"
            )
        return self

    @model_validator(mode="after")
    def _orders_rows_of_one_source(self) -> DataConfig:
        if self.order is None:
            return self
        if self.replay is not None or isinstance(self.train, Mixture):
            raise ValueError(
                "order: it is of the rows of one source, and train is a mixture, or has replay, whose sources take turns by "
                "their weights: take one source, or leave order out"
            )
        if isinstance(self.order, GrowingOrder):
            if self.window.length is None or self.window.length <= self.order.least:
                raise ValueError(f"order: growing ends at window.length: set one above least: {self.order.least}")
            if self.window.stride is not None or self.collect is not None:
                key = "window.stride" if self.collect is None else "collect"
                raise ValueError(f"order: growing cuts texts into rows with one token in common, without {key}: leave it out")
        if self.generates and self.order.columns:
            raise ValueError(
                f"order: rows that collect makes have no column {self.order.columns[0]}: take by: length, or make them in a "
                "run before this one"
            )
        return self

    @model_validator(mode="after")
    def _holds_out_what_it_can(self) -> DataConfig:
        if self.eval_share is None:
            return self
        if TRAIN_SHARE in self.eval:
            raise ValueError(f"eval_share: its set is called {TRAIN_SHARE}, and eval has one of that name: rename it")
        tasks = [name for name, source in self.sources.items() if isinstance(source, TaskSource)]
        if tasks:
            at = f"train.mix.{tasks[0]}" if tasks[0] else "train"
            raise ValueError(
                f"eval_share: {at} is a generated task, with other questions for evaluation: eval: {{held_out: {{task: …, "
                "split: held_out, rows: …}}"
            )
        return self

    @model_validator(mode="after")
    def _drops_against_what_there_is(self) -> DataConfig:
        named, sets = self.decontaminate.against, self.evaluated
        if unknown := [name for name in named if name not in sets] if named != "eval" else []:
            raise ValueError(f"decontaminate: against: {unknown[0]} is no set of eval ({', '.join(sets) or 'none'})")
        return self

    @model_validator(mode="after")
    def _streams_one_source(self) -> DataConfig:
        others = {f"eval.{name}": source for name, source in self.eval.items()}
        others |= {f"train.mix.{name}": source for name, source in self.sources.items() if name}
        others |= {} if self.demonstrations is None else {"demonstrations": self.demonstrations}
        if wrong := [at for at, source in others.items() if getattr(source, "stream", False)]:
            raise ValueError(f"{wrong[0]}: stream: only data.train streams, where it is one source: leave stream out")
        beside = {"replay": self.replay, "eval_share": self.eval_share, "collect": self.collect, "order": self.order}
        if self.streamed is not None and (given := [name for name, value in beside.items() if value is not None]):
            raise ValueError(f"{given[0]}: it is of all rows of train, which streams: leave one of them out")
        return self

    @model_validator(mode="after")
    def _replays_beside_others(self) -> DataConfig:
        if self.replay is not None and isinstance(self.train, Mixture) and REPLAY in self.train.mix:
            raise ValueError(f"train.mix.{REPLAY}: rows of earlier stages (data.replay) are called that: take another name")
        if self.replay is not None and self.collect is not None:
            raise ValueError("replay: rows of earlier stages come as they are, and collect makes other rows: leave one out")
        return self

    @property
    def sources(self) -> dict[str, Source]:
        """What is trained on, by the names of a mixture; one source by itself has none."""
        return sources_in(self.train)

    @property
    def evaluated(self) -> dict[str, Source | Mixture]:
        """The sets that are evaluated on, the share of train among them, each with its source."""
        return {**self.eval, **({} if self.eval_share is None else {TRAIN_SHARE: self.judged})}

    @property
    def streamed(self) -> PathSource | HubSource | None:
        """What is trained on, where it is read as it comes."""
        return self.train if isinstance(self.train, (PathSource, HubSource)) and self.train.stream else None

    @property
    def judged(self) -> Source | Mixture:
        """Whose answers are judged: of a mixture that is one generated task throughout, that task."""
        return (self.train.of_one_task or self.train) if isinstance(self.train, Mixture) else self.train

    @property
    def is_mixed(self) -> bool:
        """There are several sources, whose passes differ."""
        return self.replay is not None or len(self.sources) > 1

    @property
    def kept_clean_of(self) -> list[str]:
        """The evaluation sets of which nothing is trained on."""
        if self.decontaminate.on_hit == "report":
            return []
        return [*self.evaluated] if self.decontaminate.against == "eval" else [*self.decontaminate.against]

    @property
    def steps(self) -> list[Chosen]:
        """What is done before training, in order."""
        return steps_of(self.collect)

    @property
    def generates(self) -> bool:
        """Rows are made before they are encoded, step by step."""
        written = len(self.steps) > 1 or any(isinstance(step, Generate) for step in self.steps)
        return written or (self.earlier_rounds is not None and self.makes_data)

    @property
    def makes_values(self) -> bool:
        """What questions are worth is sampled before training."""
        return any(isinstance(step, QuestionValue) for step in self.steps)

    @property
    def makes_data(self) -> bool:
        """What is trained on, or demonstrated, is sampled before training, by right answers of the start model."""
        return any(isinstance(step, (RejectionSampling, PairSampling, FeedbackSampling)) for step in self.steps)
