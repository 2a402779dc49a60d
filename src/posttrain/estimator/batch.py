"""Plain data that the theory is written over: `Batch`, questions and requests.

Shapes: B rows (completions), T tokens of the longest completion. Index t always means token t and its own log-prob;
nothing is pre-shifted. Prompts do not stand here: they carry no loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posttrain.estimator.transfer import at_once

MAX_LOG_RATIO = 20.0
"""Cap of a log-ratio: exp overflows float32 at 88, and a token at e^20 is a fault to be seen, not a weight to be used.
A capped token no longer has the exact gradient; `ratio/capped_fraction` counts them."""


class Origin(IntEnum):
    """Who wrote a token: the policy's sampler, a demonstration, or somebody else whom nobody learns from: what an environment
    answers, and what a template writes around it.
    """

    ROLLOUT = 0
    DEMO = 1
    OTHER = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Completions of one collection, or of a part of it, padded on the right to [B, T].

    Only `loss_mask` is required. Where nobody sampled a token its `behavior_logp` is 0 and its origin is DEMO or OTHER:
    NaN is never used as a sign. OTHER never carries loss. `old_logp=None` means the current policy, detached. `version`
    is that of the weights that sampled a token, and of no meaning on demonstrations; None: those that are trained.
    `weight` is what the data say that a row or a token is worth; `Algorithm.credit` makes advantages of it. `mark` are
    tokens that `prepare` has chosen. `collision` is the log of the sum of the squared probabilities, of the policy as it
    is. `anchor` is one number for the whole step, made before its first micro-batch. `baseline` is what an answer to the
    row's question is worth. In an episode `turn` is which turn of the policy's a token is of, from 1 on, and 0 where others
    wrote; `token_reward` is what a turn was paid, on the turn's last token, and 0 elsewhere. `taught` are rows beside which
    there is a right one for their teacher (`Needs.shows_right`). `coefficients` are those that follow what is measured
    (`Adaptive`), by their names; None: nobody keeps them, and each is where it starts. So many rows in a row are a `unit`,
    whose first one is `chosen` where there are preferences; then 1 means 2.

    Raises:
        ValueError: a field has another shape than [B, T] or [B], units are not whole, `chosen` is not the first of each, or
            a token of OTHER carries loss (looked at on the CPU, where batches are made).
    """

    loss_mask: Bool[Tensor, "B T"]
    tokens: Int[Tensor, "B T"] | None = None
    origin: Int[Tensor, "B T"] = None  # type: ignore[assignment]  # ROLLOUT everywhere
    behavior_logp: Float[Tensor, "B T"] | None = None
    old_logp: Float[Tensor, "B T"] | None = None
    ref_logp: Float[Tensor, "B T"] | None = None
    teacher_logp: Float[Tensor, "B T"] | None = None
    advantage: Float[Tensor, "B T"] | None = None
    weight: Float[Tensor, "B T"] | None = None
    entropy: Float[Tensor, "B T"] | None = None
    collision: Float[Tensor, "B T"] | None = None
    version: Int[Tensor, "B T"] | None = None
    mark: Bool[Tensor, "B T"] | None = None
    turn: Int[Tensor, "B T"] | None = None
    token_reward: Float[Tensor, "B T"] | None = None
    group: Int[Tensor, " B"] = None  # type: ignore[assignment]  # every row its own group
    reward: Float[Tensor, " B"] | None = None
    rewards_by_name: Mapping[str, Float[Tensor, " B"]] = field(default_factory=dict[str, Tensor])
    reward_mask: Bool[Tensor, " B"] | None = None
    correct: Bool[Tensor, " B"] | None = None
    chosen: Bool[Tensor, " B"] | None = None
    anchor: Float[Tensor, " B"] | None = None
    baseline: Float[Tensor, " B"] | None = None
    taught: Bool[Tensor, " B"] | None = None
    progress: float = 0.0
    coefficients: Mapping[str, float] | None = None
    unit: int = 1

    def __post_init__(self) -> None:
        rows, device = self.loss_mask.shape[0], self.loss_mask.device
        if self.loss_mask.dtype != torch.bool:
            raise ValueError(f"Batch.loss_mask must be bool, True where a token carries loss; it is {self.loss_mask.dtype}.")
        if self.origin is None:  # pyright: ignore[reportUnnecessaryComparison]
            filled = torch.full(self.loss_mask.shape, Origin.ROLLOUT, dtype=torch.int64, device=device)
            object.__setattr__(self, "origin", filled)
        if self.group is None:  # pyright: ignore[reportUnnecessaryComparison]
            object.__setattr__(self, "group", torch.arange(rows, device=device))
        self._check_shapes()
        if device.type == "cpu" and bool((self.loss_mask & (self.origin == Origin.OTHER)).any()):
            raise ValueError(
                "Batch.loss_mask is True on a token of Origin.OTHER: what others wrote is read, and never learnt."
            )
        if self.chosen is not None and self.unit == 1:
            object.__setattr__(self, "unit", 2)
        if rows % self.unit:
            raise ValueError(f"Batch: {rows} rows are no whole units of {self.unit}.")
        if self.chosen is not None and not torch.equal(self.chosen, torch.arange(rows, device=device) % self.unit == 0):
            how = "alternate True, False: row 2i is chosen, row 2i+1 is rejected"
            raise ValueError(
                f"Batch.chosen must {how if self.unit == 2 else f'be True in row {self.unit}i, and nowhere else'}."
            )

    def _check_shapes(self) -> None:
        rows = len(self.loss_mask)
        for name, value in self.rewards_by_name.items():
            if value.shape != (rows,):
                raise ValueError(f"Batch.rewards_by_name[{name!r}] has shape {tuple(value.shape)}; ({rows},) is needed.")
        for name, value in self._tensors().items():
            expected = self.loss_mask.shape if value.dim() == 2 else self.loss_mask.shape[:1]
            if value.shape != expected or (value.dim() == 2) != (name in PER_TOKEN):
                want = tuple(self.loss_mask.shape if name in PER_TOKEN else expected)
                raise ValueError(f"Batch.{name} has shape {tuple(value.shape)}; loss_mask asks for {want}.")

    def _tensors(self) -> dict[str, Tensor]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def replace(self, **changes: Any) -> Batch:
        """A copy with the named fields changed."""
        if self.chosen is None or changes.keys() & {"chosen", "loss_mask"}:
            return dataclasses.replace(self, **changes)
        copy = self._with(changes)  # its pairs have been looked at, and on a GPU a look is a wait
        copy._check_shapes()
        return copy

    def _with(self, changes: Mapping[str, Any]) -> Batch:
        copy = object.__new__(type(self))
        for name, value in {**self.__dict__, **changes}.items():
            object.__setattr__(copy, name, value)
        return copy

    def to(self, device: torch.device) -> Batch:
        """The same on another device, sent there in one copy for which nothing waits."""
        if self.loss_mask.device == device:
            return self
        own = self._tensors()
        sent = at_once([*own.values(), *self.rewards_by_name.values()], device)
        named = dict(zip(self.rewards_by_name, sent[len(own) :], strict=True))
        return self._with({**dict(zip(own, sent, strict=False)), "rewards_by_name": named})

    def take(self, rows: Sequence[int] | Int[Tensor, " n"]) -> Batch:
        """The named rows, in that order: the only way to split a batch.

        Raises:
            ValueError: the rows would cut a unit, such as a preference pair, or are a mask.
        """
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            raise ValueError("Batch.take wants row numbers, not a mask: pass mask.nonzero()[:, 0].")
        index = torch.as_tensor(rows, dtype=torch.int64, device=self.loss_mask.device)
        check_units(index, self.unit)
        changes: dict[str, Any] = {name: value[index] for name, value in self._tensors().items()}
        changes["rewards_by_name"] = {name: value[index] for name, value in self.rewards_by_name.items()}
        return self.replace(**changes)


PER_TOKEN = frozenset(
    (
        "loss_mask", "tokens", "origin", "behavior_logp", "old_logp", "ref_logp", "teacher_logp", "advantage", "weight",
        "entropy", "collision", "version", "mark", "turn", "token_reward",
    )
)  # fmt: skip
"""The fields of a batch that are [B, T]."""


def check_units(rows: Int[Tensor, " n"], unit: int) -> None:
    """Refuses row numbers that are not of whole units of so many rows.

    Raises:
        ValueError: says so.
    """
    if unit == 1:
        return
    first, places = rows[0::unit], torch.arange(unit, device=rows.device)
    if len(rows) % unit or not torch.equal(rows.view(-1, unit), first[:, None] + places) or bool((first % unit).any()):
        what = "preference pair" if unit == 2 else f"unit of {unit} rows"
        raise ValueError(f"Batch.take would cut a {what}: take rows {unit}i to {unit}i+{unit - 1} together, in order.")


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt, before anything was sampled for it. `cuts`: after how many tokens of the demonstration another step of it
    begins, where that is known.
    """

    id: int
    prompt: Sequence[int]
    demonstration: Sequence[int] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cuts: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a rollout engine is asked for: `n` completions of `prompt` + `prefix`, both token ids.

    A prefix comes back as DEMO tokens at the head of its row. `question` is the id that seeds are made of, with `turn`, which
    of the answers in a conversation it is, and `sample`, the number of the first of the n. `temperature` and `max_tokens` are
    its own, in place of those of all; at temperature 0 the most probable tokens are asked for.
    """

    prompt: Sequence[int]
    prefix: Sequence[int] = ()
    n: int = 1
    question: int = 0
    temperature: float | None = None
    max_tokens: int | None = None
    turn: int = 0
    sample: int = 0
