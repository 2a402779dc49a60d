"""Two runs on the same problems: how much one is better, and whether that is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from posttrain.execution.report.record import Record
from posttrain.rewards.grading import Verdict
from posttrain.telling import tell

CONFIDENCE, RESAMPLES = 0.95, 10_000
Scores = Mapping[str, float]
"""By the place of a problem, the share of its answers that are right."""


@dataclass(frozen=True, slots=True)
class Paired:
    """One run's scores less another's, problem by problem.

    low, high: of the mean difference, a 95 % bootstrap over problems; where all differ alike, `of_one_gap`. p: of sign flips,
    how often a difference is so large if both are alike. mcnemar: the same by McNemar's exact test, where each score is 0 or
    1. holm: `p` among those of a table.
    """

    won: int
    tied: int
    lost: int
    difference: float
    low: float
    high: float
    p: float
    mcnemar: float | None = None
    holm: float | None = None

    @property
    def problems(self) -> int:
        """That both have answered."""
        return self.won + self.tied + self.lost


def paired(scores: Sequence[float], others: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0) -> Paired:
    """Holds the scores of one run against those of another on the same problems, in one order.

    Args:
        scores: of the one, from 0 to 1.
        others: of the other.
        resamples: of problems, and of sign flips; where there are fewer flips than these, all of them are made.
        seed: of both.
    """
    one, other = np.asarray(scores, float), np.asarray(others, float)
    gaps = one - other
    won, lost = int((gaps > 0).sum()), int((gaps < 0).sum())
    mean = float(gaps.mean())
    if not won + lost:
        return Paired(
            0, len(gaps), 0, 0.0, *of_one_gap(0.0, len(gaps)), 1.0, mcnemar=1.0 if _are_verdicts(one, other) else None
        )
    if len({*gaps.tolist()}) == 1:
        low, high = of_one_gap(mean, len(gaps))
    else:
        drawn = stats.bootstrap(
            (gaps,), np.mean, n_resamples=resamples, confidence_level=CONFIDENCE, method="percentile", batch=100, rng=seed
        )
        low, high = map(float, drawn.confidence_interval)
    exact = float(stats.binomtest(won, won + lost).pvalue) if _are_verdicts(one, other) else None
    p = _by_flips(gaps[gaps != 0], resamples, seed)  # the signs of others make no difference
    return Paired(won, len(gaps) - won - lost, lost, mean, low, high, p, exact)


def of_one_gap(gap: float, problems: int) -> tuple[float, float]:
    """The 95 % interval of a mean difference where all problems have the same, from -1 to 1, and a bootstrap has no width.

    Where no problem in n is another one, up to a share u = z² / (n + z²) of all may be, Wilson's bound for 0 of n, and those
    differ by -1 or by 1 at the most. Of verdicts this is the score interval for paired proportions (Tango, Statistics in
    Medicine 17, 1998): from -u to u where all are tied, from 1 - 2u to 1 where all are won.
    """
    square = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    others = square / (problems + square)
    return gap - others * (1 + gap), gap + others * (1 - gap)


def _by_flips(gaps: Any, resamples: int, seed: int) -> float:
    if len(gaps) == 1:
        return 1.0  # it is as large with either sign
    none = np.zeros_like(gaps)
    return float(
        stats.permutation_test(
            (gaps, none), _mean_gap, permutation_type="samples", n_resamples=resamples, batch=100, rng=seed
        ).pvalue
    )


def _mean_gap(one: Any, other: Any, axis: int) -> Any:
    return np.mean(one - other, axis=axis)


def _are_verdicts(*scores: Any) -> bool:
    return all(bool(np.isin(one, (0.0, 1.0)).all()) for one in scores)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p among all of them (Holm, Scand. J. Stat. 6, 1979): the k-th smallest of m times m - k + 1, and none below one
    that is smaller.
    """
    adjusted, largest = [1.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, ps[place] * (len(ps) - rank)))
        adjusted[place] = largest
    return adjusted


def scores_of(record: Record) -> dict[str, Scores]:
    """Of each evaluation set that a run has answered, by the answers of its last evaluation; failed grades are in none."""
    found: dict[str, Scores] = {}
    for stage in record.stages:
        for name in stage.sets():
            answers = stage.answers(name)
            right: dict[str, list[bool]] = {}
            for answer in answers[max(answers)]:
                if not (verdict := Verdict(answer["verdict"])).failed:
                    right.setdefault(answer["where"], []).append(verdict is Verdict.RIGHT)
            found[name] = {where: sum(verdicts) / len(verdicts) for where, verdicts in right.items()}
    return found


def compared(folders: Mapping[str, Path]) -> dict[tuple[str, str, str], Paired]:
    """By set and the names of two runs, each pair that has answered the same problems, with Holm's correction over all."""
    runs = {name: scores_of(Record.of(folder)) for name, folder in folders.items()}
    found: dict[tuple[str, str, str], Paired] = {}
    for one, other in combinations(runs, 2):
        for name in [name for name in runs[one] if name in runs[other]]:
            here, there = runs[one][name], runs[other][name]
            both = [where for where in here if where in there]
            if alone := len(here) + len(there) - 2 * len(both):
                tell("not-paired", f"{name}: {alone} problems that {one} or {other} alone has an answer to are left out.")
            if both:
                found[name, one, other] = paired([here[where] for where in both], [there[where] for where in both])
    corrected = holm([one.p for one in found.values()])
    return {key: replace(one, holm=p) for (key, one), p in zip(found.items(), corrected, strict=True)}
