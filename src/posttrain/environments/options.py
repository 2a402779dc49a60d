"""What every environment can be told in a recipe. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from posttrain.environments.base import Environment
from posttrain.rewards.reading.calls import AnyFormat
from posttrain.rewards.values import MAX_WEIGHT
from posttrain.settings.base import Config, Count, Positive, Share

Limit = Literal["max_turns", "max_tokens", "context"]
BIASED = {
    "reached": "the mean of those episodes alone that came to a turn is of what the policy has chosen",
    "turn_index": "each turn's own pay less the mean over the turns of its number leaves out what a turn does to later ones",
    "turn_rows": "an episode of more turns would count more",
}
"""Credits that others have, and that do not follow the gradient of the expected reward; each with the reason."""


class EnvironmentConfig(Config, ABC):
    """What every environment can be told."""

    says_right: ClassVar[bool] = False
    """It can say which episodes are right."""
    forks: ClassVar[bool] = False
    """Its environments are `Forkable`."""
    makes_tasks: ClassVar[bool] = False
    """It makes tasks of its own, which a source `{environment: {rows: …}}` asks for."""
    relabels: ClassVar[bool] = False
    """It may be `Relabelling`."""

    name: str
    """Which environment; the other keys here are its options."""
    max_turns: Count
    """Turns of the policy, after which an episode ends."""
    turn_tokens: Count | None = None
    """Tokens of one turn of the policy; rollout.max_tokens, which is all that it writes in an episode, if not set."""
    observation_tokens: Count = 512
    """Tokens of what the environment says after a turn; more of them are cut out of its middle, and counted."""
    format: AnyFormat = "none"
    """How the policy writes calls of tools; none: the environment reads its text."""
    max_invalid: Count = 3
    """Turns in a row with a call that cannot be read, or that calls no tool, after which an episode ends; where there are
    tools."""
    before: str = ""
    """Text before what the environment says, where there is no chat template (data.chat_template: false)."""
    after: str = ""
    """Text after it."""
    deadline: Positive = 30.0
    """Seconds that the environment has for the beginning, and for each turn."""
    concurrency: Count = 64
    """Environments that work at a time."""
    retries: Annotated[int, Field(ge=0, le=3)] = 0
    """How often an episode that failed is played again, from its beginning and with the same seeds, before it counts as
    failed. A network is worth it; a bug of the environment fails each time."""
    max_error_rate: Share = 0.2
    """A run whose environment fails more often (deadline, an exception) ends with exit code 7; failed episodes are in no
    group's baseline, and carry no loss."""
    logp_bound: Positive | None = None
    """Largest difference, in nats, between the log-prob of a token as it was sampled and as the trainer has it; above it a
    run ends with exit code 6, for engine and trainer do not read the same tokens. 0.01 if not set, of bfloat16 1."""
    mask_failed_calls: bool = False
    """Turns of the policy whose calls failed (they cannot be read, there is no such tool, its arguments are wrong, or it says
    that there is an error) carry no loss; the episode's reward, and its group's baseline, are what they are without this."""
    mask: list[Limit] = []
    """Limits whose episodes carry no loss, and stay in their group's baseline; none: the reward says what they are worth."""
    weight: Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)] = 1.0
    """Of the sum of what an episode's turns were paid, among the rewards; 0 only watches."""

    credit: Literal["outcome", "returns"] = "outcome"
    """Whether all turns of an episode have its whole reward as their credit, or each turn what was paid from it on; the
    rewards of `rewards` are paid for the last turn. Both are unbiased; returns leave out what was paid before a turn, which
    it has not moved."""
    gamma: Annotated[float, Field(gt=0, le=1)] = 1.0
    """With `credit: returns`: what a turn is paid counts this much less with every turn before it."""

    @field_validator("credit", mode="before")
    @classmethod
    def _is_unbiased(cls, credit: Any) -> Any:
        if isinstance(credit, str) and (reason := BIASED.get(credit)):
            raise ValueError(f"{credit} is biased: {reason}; returns are not")
        return credit

    @model_validator(mode="after")
    def _gamma_is_read(self) -> EnvironmentConfig:
        if self.gamma < 1 and self.credit == "outcome":
            raise ValueError("gamma: nothing is discounted with credit: outcome: set credit: returns")
        return self

    @property
    def label(self) -> str:
        """What it is called."""
        return self.name

    @property
    def package(self) -> tuple[str, str] | None:
        """A package that it needs and this one does not bring, by its name in Python, and what is to be installed."""
        return None

    @property
    def foreign_code(self) -> str | None:
        """Of others' code that it runs, beside the path of a class of yours: what is loaded; it then needs --allow-code."""
        return None

    @property
    def other_machine(self) -> str | None:
        """The address of the other machine that it is on; it then needs --allow-remote-environment."""
        return None

    @property
    def at_once(self) -> int | None:
        """Episodes that it can have at a time; None: any number."""
        return None

    @property
    def observed(self) -> int:
        """Tokens that the environment says in an episode, at most, without what a template writes around them."""
        return (self.max_turns - 1) * self.observation_tokens

    @abstractmethod
    def build(self) -> Callable[[], Environment]:
        """What makes the environment of each episode.

        Raises:
            SetupError: it does not start.
        """
