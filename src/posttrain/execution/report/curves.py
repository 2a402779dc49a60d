"""Metrics over the steps as lines in an SVG: which ones matter, their scale, and the points that are drawn."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from posttrain.execution.report.record import Record, Stage

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360.0, 200.0, 46.0, 16.0, 8.0, 22.0
DRAWN = 300  # points of a line; of more, means of equal stretches are drawn
DOTTED = 12  # points of a line that are marked, at most
SMOOTHED = 20  # steps of the running mean, where a line has at least four times as many
MEANINGS: Mapping[str, str] = {
    r"eval/.+/(pass|majority)@\d+": "share of questions answered right, with its 95 % interval",
    r"eval/.+/nll": "on held-out rows, nats a token",
    r"eval/.+/loss": "what is minimised, on held-out rows",
    r"eval/.+/preference/accuracy": "share of held-out pairs won, against the start model where there is one",
    r"eval/.+/principles/accuracy": "held-out: how often an answer and the principle it was written under are told to belong",
    r"eval/.+/length": "tokens of an answer",
    r"reward/mean": "mean reward of a collection",
    r"rollout/correct": "share of sampled answers that are right",
    r"reward/(?!mean|spread|right_minus_wrong).+": "mean of one reward",
    r"objective/.+": "the objective as its paper defines it",
    r"nll": "negative log-likelihood, nats a token",
    r"nll/[^/]+": "of demonstrations of one source, nats a token",
    r"data/share/[^/]+": "share of the step's rows that are of this source",
    r"loss": "what is minimised",
    r"preference/raw_accuracy": "share of pairs whose chosen answer is the likelier one",
    r"preference/.+": "of pairs, against the start model where there is one",
    r"principles/accuracy": "how often an answer and the principle it was written under are told to belong",
    r"kl/.+": "nats a token",
    r"entropy": "of sampled tokens, nats",
    r"(kl|entropy)_coef": "the coefficient, which follows what is measured",
    r"rollout/length": "tokens of a sampled answer",
    r"rollout/cut_off": "share of answers that max_tokens ended",
    r"rollout/equal_groups": "share of groups whose rewards are all equal: no signal",
    r"rollout/taught": "share of answers whose teacher is shown another right one",
    r"rollout/repetition": "share of 4-grams that occurred before in the answer",
    r"logp_diff/max": "largest gap between sampler and trainer, nats",
    r"ratio/(mean|capped_fraction)": "importance ratio",
    r"train/demonstrated": "share of trained tokens that are demonstrated",
    r"grad_norm": "before clipping",
    r"learning_rate": "",
    r"train/tokens_per_second": "",
}
"""Metrics that are drawn, in their order, and what they are; a name of metrics.jsonl or eval.jsonl must match whole."""
_PATTERNS = {re.compile(pattern): meaning for pattern, meaning in MEANINGS.items()}


@dataclass(frozen=True)
class Series:
    """A metric of one run: step and value, NaN where it is not finite; low and high are of its interval, or the value."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Drawn:
    """One line of a panel: paths of an SVG. band: its interval, where it has one. dots: its points, where they are few."""

    label: str
    colour: int
    raw: str
    smooth: str
    band: str
    dots: Sequence[tuple[float, float]]
    last: str


@dataclass(frozen=True)
class Panel:
    """One metric of all runs. same: metrics of the same values. ticks: places and texts on the axes. borders: where a stage
    ends.
    """

    title: str
    meaning: str
    same: list[str]
    lines: Sequence[Drawn]
    y_ticks: Sequence[tuple[float, str]]
    x_ticks: Sequence[tuple[float, str]]
    borders: Sequence[float]


def panels(records: Sequence[Record]) -> tuple[list[Panel], dict[str, str]]:
    """Of all metrics that matter and that a run has, in their order; and those that never change, with their value."""
    offsets = [_offsets(record) for record in records]
    names = dict.fromkeys(name for record in records for stage in record.stages for name in _names(stage))
    drawn: dict[tuple[object, ...], Panel] = {}
    constant: dict[str, str] = {}
    for pattern, meaning in _PATTERNS.items():
        for name in [name for name in names if pattern.fullmatch(name)]:
            series = [_series(record, name, starts) for record, starts in zip(records, offsets, strict=True)]
            values = [value for one in series for value in one.values]
            key = tuple((tuple(one.steps), tuple(one.values)) for one in series)
            if key in drawn:
                drawn[key].same.append(name)
            elif len(set(values)) == 1:
                constant[name] = number_of(values[0])
            elif any(len(one.steps) > 1 for one in series):
                drawn[key] = _panel(name, meaning, series, offsets[0][1:] if len(records) == 1 else [])
    return list(drawn.values()), constant


def _names(stage: Stage) -> Iterator[str]:
    for lines in (stage.evaluations, stage.steps):
        seen = dict.fromkeys(name for line in lines for name in line)
        yield from (name for name in seen if not name.endswith(("/low", "/high")))


def _offsets(record: Record) -> list[int]:
    """The steps that were made before each stage."""
    found = [0]
    for stage in record.stages[:-1]:
        found.append(found[-1] + stage.last_step)
    return found


def _series(record: Record, name: str, offsets: Sequence[int]) -> Series:
    rows: list[tuple[float, float, float, float]] = []
    for stage, offset in zip(record.stages, offsets, strict=True):
        lines = stage.evaluations if name.startswith("eval/") else stage.steps
        for line in lines:
            if name in line:
                value = line[name]
                rows.append((offset + line["step"], value, line.get(f"{name}/low", value), line.get(f"{name}/high", value)))
    steps, values, low, high = ([row[i] for row in rows] for i in range(4))
    return Series(record.name, steps, values, low, high)


def _panel(name: str, meaning: str, series: Sequence[Series], borders: Sequence[float]) -> Panel:
    finite = [v for one in series for v in (*one.values, *one.low, *one.high) if math.isfinite(v)] or [0.0]
    y_ticks = ticks(min(finite), max(finite), 4)
    floor, ceiling = min(y_ticks[0], *finite), max(y_ticks[-1], *finite)
    last = max(step for one in series for step in one.steps)
    first = min(step for one in series for step in one.steps)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first or 1.0)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - floor) / (ceiling - floor or 1.0))

    def drawn(number: int, one: Series) -> Drawn:
        shown = [(x(step), y(value)) for step, value in zip(*_thinned(one.steps, one.values), strict=True)]
        smooth = _running(one.values) if len(one.values) >= 4 * SMOOTHED else []
        means = [(x(step), y(value)) for step, value in zip(*_thinned(one.steps, smooth), strict=True)] if smooth else []
        has_band = any(low != high for low, high in zip(one.low, one.high, strict=True))
        edge = [(x(s), y(v)) for s, v in zip(one.steps, one.high, strict=True)]
        edge += [(x(s), y(v)) for s, v in zip(reversed(one.steps), reversed(one.low), strict=True)]
        dots = [(x, y) for x, y in shown if math.isfinite(y)] if len(shown) <= DOTTED else []
        final = number_of(one.values[-1]) if one.values else ""
        return Drawn(one.label, number % 8, _path(shown), _path(means), _path(edge) + "Z" if has_band else "", dots, final)

    x_ticks = [tick for tick in ticks(first, last, 4) if first <= tick <= last]
    return Panel(
        name,
        meaning,
        [],
        [drawn(i, one) for i, one in enumerate(series)],
        [(y(tick), number_of(tick)) for tick in y_ticks if floor <= tick <= ceiling],
        [(x(tick), number_of(tick)) for tick in x_ticks],
        [x(border) for border in borders if first < border < last],
    )


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    size = math.ceil(len(steps) / DRAWN)
    if size <= 1:
        return list(steps), list(values)
    parts = [slice(i, i + size) for i in range(0, len(steps), size)]
    return [fmean(steps[part]) for part in parts], [_mean(values[part]) for part in parts]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def _running(values: Sequence[float]) -> list[float]:
    return [_mean(values[max(0, i - SMOOTHED + 1) : i + 1]) for i in range(len(values))]


def _path(points: Sequence[tuple[float, float]]) -> str:
    """A path, broken where a value is not finite."""
    parts, pen = list[str](), "M"
    for x, y in points:
        if not math.isfinite(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers that enclose a range: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        spare = abs(low) / 10 or 1.0
        low, high = low - spare, high + spare
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    return [i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def number_of(value: float) -> str:
    """A number for people."""
    if not math.isfinite(value):
        return "not finite"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"
