"""A question's completions and what their rewards are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from posttrain.data.rows import Problem
from posttrain.rewards.kinds.repetition import repeated
from posttrain.rewards.rewarded import Rewarded
from posttrain.rollout.engine import Completion
from posttrain.train.collect.episodes.episode import Episode

NGRAM = 4  # tokens, for the share of a completion that repeats itself


@dataclass(frozen=True, slots=True)
class Baseline:
    """What an answer to a question is worth: `value`, None where that could not be judged. `tokens` of the greedy answer of
    which it is the reward, where it is one.
    """

    value: float | None
    tokens: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Rollouts:
    """A question's rows, end to end, each a prefix and what was sampled after it; and what their rewards are. n is the tokens
    of all of them.

    tokens: [n]. logprobs: [n], 0 on prefixes. lengths, prefixes: tokens of each row, and of its prefix, [B].
    cut_off: rows that max_tokens ended, [B]. repetition: the share of a row's sample that repeats itself, [B].
    logprob: of a row's sample, [B]. demonstrated: the last row is the question's demonstration, all prefix.
    baseline: what the rows are compared with, where that is not their own mean.
    own: where the policy wrote, and not an environment, [n]; None: everywhere after the prefix. episodes: of each row, where
    an environment answers.
    """

    problem: Problem
    tokens: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    lengths: NDArray[np.int64]
    prefixes: NDArray[np.int64]
    cut_off: NDArray[np.bool_]
    repetition: NDArray[np.float64]
    logprob: NDArray[np.float64]
    rewarded: Rewarded
    demonstrated: bool = False
    baseline: Baseline | None = None
    own: NDArray[np.bool_] | None = None
    episodes: tuple[Episode, ...] = ()

    @classmethod
    def of(
        cls,
        problem: Problem,
        answers: Sequence[tuple[Sequence[int], Completion]],
        rewarded: Rewarded,
        *,
        demonstrated: bool,
        baseline: Baseline | None = None,
    ) -> Rollouts:
        """Of prefixes and the completions that were sampled after them."""
        completions = [completion for _, completion in answers]
        given = [np.asarray(prefix, np.int32) for prefix, _ in answers]
        silent = [np.zeros(len(prefix), np.float32) for prefix in given]
        return cls(
            problem,
            np.concatenate([part for pair in zip(given, (c.tokens for c in completions), strict=True) for part in pair]),
            np.concatenate([part for pair in zip(silent, (c.logprobs for c in completions), strict=True) for part in pair]),
            np.array([len(prefix) + len(c.tokens) for prefix, c in zip(given, completions, strict=True)]),
            np.array([len(prefix) for prefix in given]),
            np.array([c.finish == "length" for c in completions]),
            np.array([repeated(c.tokens, NGRAM) for c in completions]),
            np.array([total_of(c.logprobs) for c in completions]),
            rewarded,
            demonstrated,
            baseline,
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def sampled(self) -> range:
        """The rows that were sampled, in part at least."""
        return range(len(self) - self.demonstrated)

    @property
    def plain(self) -> list[int]:
        """The rows that were sampled from the prompt alone."""
        return [row for row in self.sampled if not self.prefixes[row]]

    @property
    def solved(self) -> bool | None:
        """Whether one of the rows that were sampled is right; None where nothing is known of any."""
        rewarded, rows = self.rewarded, slice(len(self.sampled))
        if rewarded.correct is None or not (known := (rewarded.known & rewarded.graded)[rows]).any():
            return None
        return bool((rewarded.correct[rows] & known).any())

    def right_beside(self, row: int, texts: Sequence[str]) -> str | None:
        """Of what the rows say, the first that is right and something else than this row says."""
        rewarded = self.rewarded
        if rewarded.correct is None:
            return None
        right = (rewarded.correct & rewarded.known & rewarded.graded).tolist()
        others = (texts[i] for i in self.sampled if right[i] and texts[i].strip())
        return next((text for text in others if text != texts[row]), None)

    @property
    def written(self) -> NDArray[np.int64]:
        """Tokens of each row that were sampled, [B]."""
        if self.own is None:
            return self.lengths - self.prefixes
        return np.add.reduceat(self.own, np.cumsum(self.lengths) - self.lengths, dtype=np.int64)

    def row(self, row: int) -> NDArray[np.int32]:
        """The tokens of a row."""
        end = int(self.lengths[: row + 1].sum())
        return self.tokens[end - self.lengths[row] : end]


def total_of(logprobs: NDArray[np.float32]) -> float:
    """Added up one after another, whatever the processor."""
    return float(np.cumsum(logprobs, dtype=np.float64)[-1]) if len(logprobs) else 0.0
