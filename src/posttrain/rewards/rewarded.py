"""What judging rows gave, as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rewarded:
    """The judgements of some rows: the weighted sum and its parts, 0 where a reward said nothing.

    `scored` is True where that reward gave a score; `graded` is False in a row of which a reward with a weight said nothing.
    `known` is True where there is a verdict.
    `faults` has, for each reward, why judging a row failed, or None; `answers` what was answered, where any reward reads it.
    """

    total: Float[Tensor, " B"]
    by_name: Mapping[str, Float[Tensor, " B"]]
    scored: Mapping[str, Bool[Tensor, " B"]]
    graded: Bool[Tensor, " B"]
    correct: Bool[Tensor, " B"] | None
    known: Bool[Tensor, " B"]
    faults: Mapping[str, tuple[str | None, ...]]
    answers: tuple[str | None, ...]

    def take(self, rows: Sequence[int]) -> Rewarded:
        """Those of some of the rows."""
        index = torch.tensor(rows, dtype=torch.int64)
        return Rewarded(
            total=self.total[index],
            by_name={name: scores[index] for name, scores in self.by_name.items()},
            scored={name: said[index] for name, said in self.scored.items()},
            graded=self.graded[index],
            correct=None if self.correct is None else self.correct[index],
            known=self.known[index],
            faults={name: tuple(faults[row] for row in rows) for name, faults in self.faults.items()},
            answers=tuple(self.answers[row] for row in rows),
        )

    @classmethod
    def join(cls, groups: Sequence[Rewarded]) -> Rewarded:
        """The rows of several groups, judged by the same rewards."""
        verdicts = [group.correct for group in groups if group.correct is not None]
        return cls(
            total=torch.cat([group.total for group in groups]),
            by_name={name: torch.cat([group.by_name[name] for group in groups]) for name in groups[0].by_name},
            scored={name: torch.cat([group.scored[name] for group in groups]) for name in groups[0].scored},
            graded=torch.cat([group.graded for group in groups]),
            correct=torch.cat(verdicts) if verdicts else None,
            known=torch.cat([group.known for group in groups]),
            faults={name: tuple(f for group in groups for f in group.faults[name]) for name in groups[0].faults},
            answers=tuple(answer for group in groups for answer in group.answers),
        )
