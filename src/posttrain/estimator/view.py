"""What a part of an estimator may look at (`View`), and sums and means of its rows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from posttrain.estimator.batch import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """Everything a part may look at, detached: no gradient can leak through a mask, denominator or advantage.

    Values outside `select` are 0, whatever the padding held. Parts are elementwise expressions, or use `row_sum` and
    `row_mean` and are then of sequence scope; a token-scope part sees flat [n] views and [B, T] alike.
    """

    select: Bool[Tensor, "*shape"]
    logp: Float[Tensor, "*shape"]
    old_logp: Float[Tensor, "*shape"]
    origin: Int[Tensor, "*shape"]
    behavior_logp: Float[Tensor, "*shape"] | None = None
    ref_logp: Float[Tensor, "*shape"] | None = None
    teacher_logp: Float[Tensor, "*shape"] | None = None
    advantage: Float[Tensor, "*shape"] | None = None
    entropy: Float[Tensor, "*shape"] | None = None
    collision: Float[Tensor, "*shape"] | None = None
    mark: Bool[Tensor, "*shape"] | None = None
    chosen: Bool[Tensor, "B 1"] | None = None
    anchor: Float[Tensor, "B 1"] | None = None
    progress: float = 0.0
    unit: int = 1

    @classmethod
    def of(cls, batch: Batch, logp: Float[Tensor, "B T"], select: Bool[Tensor, "B T"]) -> View:
        """What the parts of one term see of a batch, with the current policy's log-probs."""
        logp = _clean(logp, select, logp.dtype)
        seen = ("behavior_logp", "old_logp", "ref_logp", "teacher_logp", "advantage", "entropy", "collision")
        given = {name: value for name in seen if (value := getattr(batch, name)) is not None}
        cleaned = {name: _clean(value, select, logp.dtype) for name, value in given.items()}
        return cls(
            select=select,
            logp=logp,
            origin=batch.origin,
            mark=None if batch.mark is None else batch.mark & select,
            chosen=None if batch.chosen is None else batch.chosen[:, None],
            anchor=None if batch.anchor is None else batch.anchor.detach().to(logp.dtype)[:, None],
            progress=batch.progress,
            unit=batch.unit,
            **{"old_logp": logp, **cleaned},
        )

    def require(self, name: str) -> Tensor:
        """The named field.

        Raises:
            ValueError: the batch does not have it.
        """
        value = getattr(self, name)
        if value is None:
            raise ValueError(f"The algorithm needs Batch.{name}, and the batch has none: its Needs must ask for it.")
        return value


def _clean(values: Float[Tensor, "..."], select: Tensor, dtype: torch.dtype) -> Float[Tensor, "..."]:
    return torch.where(select, values.detach().to(dtype), 0.0)


def row_sum(view: View, values: Float[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    """Sum over the selected tokens of each row."""
    return torch.where(view.select, values, 0.0).sum(-1, keepdim=True)


def row_mean(view: View, values: Float[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    """Mean over the selected tokens of each row; 0 for a row that has none."""
    return row_sum(view, values) / view.select.sum(-1, keepdim=True).clamp(min=1)


def counted(view: View) -> Bool[Tensor, "U 1"]:
    """Whether a unit has a selected token, and so is in N."""
    return view.select.any(-1).view(-1, view.unit).any(-1, keepdim=True)
