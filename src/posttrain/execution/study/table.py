"""A study's tables: means over seeds with 95 % intervals, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from posttrain.execution.study.config import StudyConfig
from posttrain.execution.study.matrix import Run
from posttrain.execution.study.outcome import Outcome

Value = Callable[[Outcome], float | None]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds and half the width of its 95 % t-interval."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of values, one for each seed; of one value the width is not known."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, math.nan)
        return cls(mean, float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)))


def tables(study: StudyConfig, outcomes: Mapping[Run, Outcome], chosen: Mapping[tuple[str, str], float]) -> str:
    """One table for each start model, with what all its runs had in common above it."""
    budget = (
        f"{study.budget.tokens:,} tokens, of all rows of its steps"
        if study.budget.tokens
        else f"{study.budget.seconds:g} s of steps"
    )
    seeds = ", ".join(map(str, study.seeds))
    lines = [
        f"Every run may spend {budget}. Mean over seeds {seeds} ± half of the 95 % t-interval. The learning rate of each "
        f"algorithm is the best of {', '.join(f'{rate:g}' for rate in study.tuning.learning_rates)} by "
        f"{' and '.join(study.tuning.metrics)}, on seeds {', '.join(map(str, study.tuning.seeds))}, which are not reported.",
    ]
    columns = _columns(study, outcomes)
    for start in study.starts:
        of_start = {run: outcome for run, outcome in outcomes.items() if run.start == start}
        before = [
            _cell([outcome.before.get(f"eval/{name}") for outcome in _first_of_each_seed(of_start)]) for name in _rated(study)
        ]
        lines += ["", f"### Start: {start}", ""]
        lines += ["| algorithm | learning rate | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 2)]
        lines.append(f"| *start* | | {' | '.join(before)} |" + " |" * (len(columns) - len(before)))
        for algorithm in study.algorithms:
            mine = [outcome for run, outcome in of_start.items() if run.algorithm == algorithm]
            cells = [_cell([value(outcome) for outcome in mine]) for value in columns.values()]
            lines.append(f"| {algorithm} | {chosen[start, algorithm]:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _rated(study: StudyConfig) -> list[str]:
    """pass@1 of every evaluation set that nothing was chosen by, then pass@k."""
    seen = {metric.partition("/")[0] for metric in study.tuning.metrics}
    sets = [name for name in study.recipe["data"]["eval"] if name not in seen]
    ks = study.recipe.get("eval", {}).get("k", [])
    return [f"{name}/pass@{k}" for k in (1, *(k for k in ks if k != 1)) for name in sets]


def _columns(study: StudyConfig, outcomes: Mapping[Run, Outcome]) -> dict[str, Value]:
    def after(name: str) -> Value:
        return lambda outcome: outcome.after.get(f"eval/{name}")

    def of_drift(name: str) -> Value:
        return lambda outcome: outcome.drift.get(name)

    columns: dict[str, Value] = {name.replace("/", " "): after(name) for name in _rated(study)}
    if study.earlier is not None:
        name = f"eval/{study.earlier}/pass@1"
        columns[f"{study.earlier}, after - before"] = lambda outcome: outcome.after[name] - outcome.before[name]
    first = next(iter(study.recipe["data"]["eval"]))
    columns |= {
        "length": after(f"{study.drift or first}/length"),
        "entropy": of_drift("entropy"),
        "KL from start, nats per answer": of_drift("kl_per_answer"),
        "demonstrated share": lambda outcome: outcome.demonstrated,
        "steps": lambda outcome: outcome.steps,
        "tokens of its rows": lambda outcome: outcome.tokens,
        "tokens trained": lambda outcome: outcome.tokens_trained,
        "tokens generated": lambda outcome: outcome.tokens_generated,
        "seconds": lambda outcome: outcome.seconds,
    }
    seen = {name for name, value in columns.items() for outcome in outcomes.values() if value(outcome) is not None}
    return {name: value for name, value in columns.items() if name in seen}


def _first_of_each_seed(outcomes: Mapping[Run, Outcome]) -> list[Outcome]:
    first: dict[int, Outcome] = {}
    for run, outcome in outcomes.items():
        first.setdefault(run.seed, outcome)
    return list(first.values())


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    interval = Interval.of(known)
    digits = 0 if abs(interval.mean) >= 100 else 3 if abs(interval.mean) < 10 else 1
    spread = "" if math.isnan(interval.half) else f" ± {interval.half:.{digits}f}"
    return f"{interval.mean:,.{digits}f}{spread}"
