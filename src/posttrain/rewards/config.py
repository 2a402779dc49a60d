"""What a recipe says of its rewards. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

import regex
from pydantic import Field, field_validator, model_validator

from posttrain.rewards.values import MAX_WEIGHT
from posttrain.settings.base import Config, Positive

Share = Annotated[float, Field(ge=0, le=1)]
Inside = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
RESERVED = ("mean", "right_minus_wrong")  # reward/mean and reward/right_minus_wrong are metrics of their own


class RewardConfig(Config):
    """What every reward can be told."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Columns of the data that it reads."""
    says_right: ClassVar[bool] = False
    """It can say which answers are right."""

    name: str
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] = 1.0
    """In the sum of all rewards; 0 only watches."""
    verdict: bool = False
    """It says which answers are right; where no reward is marked, the first that compares with a label does."""
    max_error_rate: Share = 0.2
    """A run whose reward fails more often (timeout, crash, an exception, NaN) ends with exit code 7."""

    @property
    def label(self) -> str:
        """Under which it is logged."""
        return self.name

    @model_validator(mode="after")
    def _can_say_what_is_right(self) -> RewardConfig:
        if self.verdict and not self.says_right:
            raise ValueError(f"verdict: {self.name} does not say which answers are right")
        return self


class MathVerifyReward(RewardConfig):
    """math-verify against the column `answer`."""

    columns, says_right = ("answer",), True
    name: Literal["math_verify"]


class ExactMatchReward(RewardConfig):
    """The final answer, letter by letter, against the column `answer`."""

    columns, says_right = ("answer",), True
    name: Literal["exact_match"]


class TaskReward(RewardConfig):
    """The verifier of the generated task that is trained on."""

    columns, says_right = ("answer",), True
    name: Literal["task"]


class CountdownReward(RewardConfig):
    """An expression of the column `nums` that makes `target`."""

    columns, says_right = ("nums", "target"), True
    name: Literal["countdown"]


class MajorityVoteReward(RewardConfig):
    """The group's most frequent answer, without any label."""

    says_right = True
    name: Literal["majority_vote"]
    reads: Literal["math_verify", "exact_match", "task"] | None = None
    """How answers are read and compared; a generated task's own way, or math_verify, if not set."""


class _OfForm(RewardConfig):
    form: Literal["boxed", "tags", "pattern"] = "boxed"
    pattern: str | None = None
    """For form: pattern, a regular expression for the whole completion."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            regex.compile(pattern or "", regex.DOTALL)
        except regex.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _has_its_pattern(self) -> _OfForm:
        if (self.form == "pattern") != (self.pattern is not None):
            raise ValueError("pattern: it goes with form: pattern")
        return self


class FormatReward(_OfForm):
    """1 where a completion has the form."""

    name: Literal["format"]


class _OfLength(RewardConfig):
    max_length: Count | None = None
    """L_max in tokens; rollout.max_tokens if not set."""
    peak: Inside = 0.5
    """Where the reward of length is largest, as a share of max_length."""
    shape: Literal["quadratic", "polyline"] = "quadratic"


class LengthReward(_OfLength):
    """A piecewise reward of length."""

    name: Literal["length"]


class FormatLengthReward(_OfForm, _OfLength):
    """Format and length together, the surrogate that needs no label."""

    name: Literal["format_length"]
    format_weight: Positive = 1.0
    """1 in the paper, 0.5 in its code."""


class OverlongReward(RewardConfig):
    """DAPO's soft punishment of long completions."""

    name: Literal["overlong"]
    max_length: Count | None = None
    """L_max in tokens; rollout.max_tokens if not set."""
    cache: Count | None = None
    """Tokens before max_length in which the punishment grows; a fifth of it if not set, as in DAPO."""

    @model_validator(mode="after")
    def _leaves_room(self) -> OverlongReward:
        if self.max_length is not None and self.cache is not None and self.cache >= self.max_length:
            raise ValueError(f"cache: {self.cache} is not below max_length: {self.max_length}")
        return self


class RepetitionReward(RewardConfig):
    """Minus the share of repeated n-grams of tokens."""

    name: Literal["repetition"]
    n: Count = 4


class FunctionReward(RewardConfig):
    """A function of yours, in TRL's form, in a process of its own; needs --allow-code."""

    says_right = True
    name: Literal["function"]
    path: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")]
    """package.module.function"""
    deadline: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    """Seconds for a group, after which its process is ended."""

    @property
    def label(self) -> str:
        """The function's own name."""
        return self.path.rpartition(".")[2]

    @field_validator("path")
    @classmethod
    def _has_a_name_of_its_own(cls, path: str) -> str:
        name = path.rpartition(".")[2]
        if name in RESERVED:
            raise ValueError(f"reward/{name} is another metric: give the function another name")
        return path


_Union = (
    MathVerifyReward
    | ExactMatchReward
    | TaskReward
    | CountdownReward
    | MajorityVoteReward
    | FormatReward
    | LengthReward
    | FormatLengthReward
    | OverlongReward
    | RepetitionReward
    | FunctionReward
)
AnyReward = Annotated[_Union, Field(discriminator="name")]
REWARDS: dict[str, type[RewardConfig]] = {get_args(one.model_fields["name"].annotation)[0]: one for one in get_args(_Union)}


def with_verdict(configs: list[Any]) -> list[Any]:
    """Marks the first reward that compares with a label, where none is marked."""
    first = next((i for i, one in enumerate(configs) if one.says_right and one.columns), None)
    if first is None or any(one.verdict for one in configs):
        return configs
    return [one.model_copy(update={"verdict": True}) if i == first else one for i, one in enumerate(configs)]
