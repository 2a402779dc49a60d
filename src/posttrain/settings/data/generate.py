"""What a recipe says of data that a model writes: who writes, what it is asked, what is kept, and what becomes of it."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from posttrain.settings.base import Config, Count, NonNegative, Template, is_address
from posttrain.settings.rollout import SamplingConfig

As = Literal["completion", "demonstration", "prompt", "answer", "text", "chosen", "rejected", "column"]
PAIRED = ("chosen", "rejected")
START = "self"


def _is_a_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r}: letters, digits and _ are expected, so that templates can name it")
    return name


class OtherWriter(Config):
    """A writer that is neither this model nor one of its teachers."""

    name: Annotated[str, Field(min_length=1)] | None = None
    """A folder, as a run's final/, or a name of the hub. It has its own tokenizer and template."""
    url: Annotated[str, AfterValidator(is_address)] | None = None
    """In place of a name: of a server with vLLM's routes that runs already, and is sent text. On another machine only with
    --allow-remote-engine."""
    stage: str | None = None
    """Which stage of the recipe it is; filled in where `writer` names one."""

    @field_validator("name")
    @classmethod
    def _is_at_home(cls, name: str | None) -> str | None:
        return os.path.expanduser(name) if name else name

    @model_validator(mode="after")
    def _is_one(self) -> OtherWriter:
        if (self.name is None) == (self.url is None):
            raise ValueError("give either name or url")
        return self


class Rule(Config):
    """A rule with a number: one of these."""

    per_question: Count | None = None
    """The first so many of each question."""
    min_tokens: Count | None = None
    """Of at least so many tokens."""
    max_tokens: Count | None = None
    """Of at most so many tokens."""
    min_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """All of a question's, where at least this share of its answers is of the majority."""
    unlike: Annotated[float, Field(gt=0, le=1)] | None = None
    """Those whose likeness to each that was kept before them is less than this: shared stretches of three characters over all
    of both (Jaccard)."""

    @model_validator(mode="after")
    def _is_one(self) -> Rule:
        if len(self._given) != 1:
            raise ValueError(f"a rule has one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def _given(self) -> dict[str, float]:
        return {name: value for name, value in self.model_dump().items() if value is not None}

    @property
    def given(self) -> tuple[str, float]:
        """Its name and its number."""
        return next(iter(self._given.items()))


def _of_writer(given: Any) -> str:
    return "another model" if isinstance(given, (dict, OtherWriter)) else "a name"


def _of_rule(given: Any) -> str:
    return "a rule" if isinstance(given, (dict, Rule)) else "a word"


Writer = Annotated[Annotated[str, Tag("a name")] | Annotated[OtherWriter, Tag("another model")], Discriminator(_of_writer)]
Word = Literal["right", "wrong", "finished", "unique"]
Keep = Annotated[Annotated[Word, Tag("a word")] | Annotated[Rule, Tag("a rule")], Discriminator(_of_rule)]


class Generate(SamplingConfig):
    """Rows made of what a model writes, before they are encoded: each row is asked, and what is kept becomes a part of it.

    Self-training on the majority's answers (LMSI, arXiv:2210.11610) and on right ones (STaR, RAFT), pairs of right and wrong
    ones, a teacher's answers, and new questions are settings of it.
    """

    writer: Writer = START
    """self (or start): the model as this stage starts. A name: one of model.teachers, or an earlier stage, by its final
    model. {name: …} or {url: …}: another one."""
    prompt_template: Template | None = None
    """What it is asked, of a row's columns; as the row is asked in training if not set."""
    temperature: NonNegative = 1.0
    """0 is greedy, for one answer."""
    n: Count = 1
    """Answers for each row."""
    verdict: Literal["grader", "majority", "none"] = "none"
    """Which answers are right. grader: as the verdict of `rewards` grades, a generated task's own verifier, or math_verify,
    by the column answer. majority: those that answer what most of the question's do, which becomes its answer; no label is
    read."""
    keep: list[Keep] | None = None
    """Rules, in order: right, wrong, finished (not cut off by max_tokens), unique, {per_question: …}, {min_tokens: …},
    {max_tokens: …}, {min_share: …}, {unlike: …}. [] keeps all. If not set: finished, and right where there is a verdict
    (wrong for as: rejected)."""
    made: As = Field("completion", alias="as")
    """What is kept becomes. completion: a row of the prompt and it. chosen, rejected: a side of a pair. prompt: a new
    question. text: a row of text. column: the row with it in `column`, for templates of later steps. Of these a row each.
    demonstration, answer: that column of the row, by the first that is kept."""
    column: Annotated[str, AfterValidator(_is_a_name)] | None = None
    """Of as: column, its name."""
    rows: Annotated[Literal["all", "made", "source"], Field(alias="for")] = "all"
    """Which rows are asked; the others stay as they are. made: those that a step before has made. source: those of the data,
    of which none has made anything."""
    against: Literal["own", "data"] | None = None
    """The other side of a pair. own: the question's answers of the other verdict. data: the row's column of that side, or
    else its demonstration or completion. If not set, own where there is a verdict."""
    source: Literal["leave_out", "fallback", "keep"] = "leave_out"
    """What becomes of the row that is asked. fallback: it stays as it is where nothing is kept of what is written for it.
    keep: it stays, before what is made of it."""

    @field_validator("writer", mode="before")
    @classmethod
    def _is_the_start(cls, given: Any) -> Any:
        return START if given == "start" else given

    @model_validator(mode="after")
    def _fits_together(self) -> Generate:
        words = [one for one in self.rules if isinstance(one, str)]
        shares = [one for one in self.rules if isinstance(one, Rule) and one.min_share is not None]
        judged = [*words, *["min_share"] * bool(shares)]
        for word in ("right", "wrong", "min_share"):
            if word in judged and self.verdict == "none":
                raise ValueError(f"keep: {word} asks for a verdict: set verdict: grader, or majority")
        if shares and self.verdict != "majority":
            raise ValueError("keep: min_share is of verdict: majority")
        if {"right", "wrong"} <= {*words}:
            raise ValueError("keep: right and wrong keep nothing together: take one of them, or [] for all")
        if self.made == "prompt" and self.verdict != "none":
            raise ValueError("verdict: new questions have none: give their answers in a step after this one")
        if self.temperature == 0 and self.n > 1:
            raise ValueError(f"n: {self.n} greedy answers are one: set temperature, or n: 1")
        if isinstance(self.writer, OtherWriter) and self.writer.url is not None and self.engine != "hf":
            raise ValueError(f"engine: {self.engine} samples from models that are loaded here, and the writer is a server")
        self._check_column()
        self._check_sides(words)
        return self

    def _check_column(self) -> None:
        if (self.made == "column") != (self.column is not None):
            raise ValueError("column: it is the name of the column that as: column writes: give both, or neither")
        if self.column in get_args(As) and self.column not in PAIRED:
            raise ValueError(f"column: {self.column} has a form of its own: as: {self.column}")

    def _check_sides(self, words: list[str]) -> None:
        if self.against is not None and self.made not in PAIRED:
            raise ValueError(f"against: it is of pairs (as: chosen, rejected), and this makes {self.made}")
        if self.made not in PAIRED or self.other_side == "data":
            return
        if self.verdict == "none":
            raise ValueError("against: own answers are told apart by a verdict: set verdict: grader, or majority")
        if not {"right", "wrong"} & {*words}:
            raise ValueError("keep: right or wrong says which of its own answers are which side; or set against: data")

    @property
    def rules(self) -> list[Keep]:
        """What is kept, in order."""
        if self.keep is not None:
            return list(self.keep)
        side: list[Keep] = ["wrong" if self.made == "rejected" else "right"] if self.verdict != "none" else []
        return [*side, "finished"]

    @property
    def other_side(self) -> Literal["own", "data"]:
        """Where the other side of a pair is from."""
        return self.against or ("data" if self.verdict == "none" else "own")
