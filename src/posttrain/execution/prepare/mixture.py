"""The sources that a recipe trains on, and how their rows follow one another."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from random import Random
from typing import Any

from posttrain.data.rows import Example, Problem
from posttrain.data.rows.together import by_source, tokens_of
from posttrain.data.sources import Record, read
from posttrain.errors import DataError
from posttrain.settings.data import TRAIN_SHARE, DataConfig, Mixture, Source
from posttrain.settings.data.mixture import OWN, REPLAY, Phase, sources_in
from posttrain.train.collect.order import Mixed

PARTS = 10_000  # of which weights by tokens are whole numbers: a mean of tokens is no more exact than that
WHOLE = (Phase(),)


@dataclass(frozen=True, slots=True)
class Part:
    """One source of what is trained on. label: for messages. name: in the mixture; none, where it is all there is."""

    name: str
    label: str
    source: Source | None

    @property
    def report(self) -> str:
        """What the report of its rows is called."""
        return f"train/{self.name}" if self.name else "train"

    @property
    def candidates(self) -> str:
        """The same of its questions that are sampled before training."""
        return f"candidates/{self.name}" if self.name else "candidates"


def parts(data: DataConfig) -> list[Part]:
    """All of them, in the order in which their rows lie."""
    alone = "" if data.replay is None else OWN
    found = [
        Part(name or alone, f"data.train.mix.{name}" if name else "data.train", source)
        for name, source in data.sources.items()
    ]
    return found if data.replay is None else [*found, Part(REPLAY, "data.replay", None)]


def records_of(part: Part, data: DataConfig, seed: int) -> Iterator[Record]:
    """The records that are trained on, those that are held out left out; in a mixture their places have the source's name."""
    found = _replayed(data, seed) if part.source is None else _trained(part.source, data.eval_share)
    return found if not part.name else (replace(record, where=f"{part.name}: {record.where}") for record in found)


def held_out_of(data: DataConfig) -> list[Record]:
    """The share of the training records that is evaluated on."""
    named = ((part.name, record) for part in parts(data) if part.source is not None for record in read(part.source))
    return [
        replace(record, where=f"{name}: {record.where}") if name else record
        for name, record in named
        if _is_held_out(record, data.eval_share)
    ]


def _trained(source: Source, share: float | None) -> Iterator[Record]:
    return (record for record in read(source) if not _is_held_out(record, share))


def held_of(data: DataConfig) -> dict[str, list[Record]]:
    """The rows of every evaluation set."""
    held = {name: list(read(source)) for name, source in data.eval.items()}
    return held if data.eval_share is None else {**held, TRAIN_SHARE: held_out_of(data)}


def _is_held_out(record: Record, share: float | None) -> bool:
    """By what a record says, whatever its place."""
    if share is None or record.fault is not None:
        return False
    said = json.dumps(record.columns, sort_keys=True, default=str, ensure_ascii=True)
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:8], "big") < share * 2**64


def _replayed(data: DataConfig, seed: int) -> Iterator[Record]:
    assert data.replay is not None
    stages = data.replay.sources.items()
    every = chain.from_iterable(
        (replace(record, where=f"{stage}: {record.where}") for record in _trained(source, earlier.eval_share))
        for stage, earlier in stages
        for source in sources_in(earlier.train).values()
    )
    return every if data.replay.buffer is None else iter(reservoir(every, data.replay.buffer, Random(f"{seed}/replay")))


def reservoir(records: Iterable[Record], size: int, draw: Random) -> list[Record]:
    """So many of them, each with the same chance, in their order (algorithm R); all, where there are fewer."""
    kept = list[tuple[int, Record]]()
    for number, record in enumerate(records):
        place = number if number < size else draw.randrange(number + 1)
        if place < size:
            kept[place : place + 1] = [(number, record)]
    return [record for _, record in sorted(kept, key=lambda one: one[0])]


def mixed_of(data: DataConfig, train: Sequence[Example] | Sequence[Problem], run: int) -> Mixed | None:
    """How the rows of several sources follow one another in a run that reads so many; None where there is one source.

    Raises:
        DataError: of a source nothing is left, or the run needs more of it than there is and it may not begin again.
    """
    names = [part.name for part in parts(data)]
    if names == [""]:
        return None
    sizes = {name: len(rows) for name, rows in by_source(train).items()}
    for part in parts(data):
        if part.name not in sizes:
            raise DataError(f"{part.label}: no row of it is left to be trained on: leave it out of the mixture.")
    train_mix = data.train if isinstance(data.train, Mixture) else None
    phases = train_mix.phases if train_mix is not None and train_mix.phases else WHOLE
    per_row = _tokens(train) if train_mix is not None and train_mix.unit == "tokens" else None
    mixed = Mixed(
        tuple(names),
        tuple(sizes[name] for name in names),
        tuple(
            (math.ceil(Fraction(str(phase.until)) * run), _whole(names, shares_in(data, phase), per_row)) for phase in phases
        ),
    )
    if train_mix is not None and train_mix.exhausted == "stop":
        for name, needed, there in zip(names, mixed.counts(run), mixed.sizes, strict=True):
            if name in train_mix.mix and needed > there:
                raise DataError(
                    f"data.train.mix.{name}: the run would read {needed:,} rows of it, and there are {there:,} (exhausted: "
                    "stop): set fewer training.max_steps, a smaller weight, or exhausted: repeat."
                )
    return mixed


def shares_in(data: DataConfig, phase: Phase) -> dict[str, Fraction]:
    """What each source is of all that is read in a phase, in the unit of the mixture; those that are read."""
    if isinstance(data.train, Mixture):
        own = {name: source.weight for name, source in data.train.mix.items()}
        weights = {name: Fraction(str(weight)) for name, weight in (phase.weights or own).items()}
    else:
        weights = {OWN: Fraction(1)}
    total = sum(weights.values())
    kept = Fraction(1) if data.replay is None else 1 - Fraction(str(data.replay.share))
    shares = {name: weight / total * kept for name, weight in weights.items()}
    return shares if data.replay is None else {**shares, REPLAY: 1 - kept}


def _whole(names: Sequence[str], shares: Mapping[str, Fraction], per_row: Mapping[str, Fraction] | None) -> tuple[int, ...]:
    """Weights of rows, as whole numbers."""
    if per_row is not None:
        by_row = {name: share / per_row[name] for name, share in shares.items()}
        total = sum(by_row.values())
        shares = {name: Fraction(max(1, round(PARTS * weight / total))) for name, weight in by_row.items()}
    scale = math.lcm(*(share.denominator for share in shares.values()))
    return tuple(int(shares[name] * scale) if name in shares else 0 for name in names)


def _tokens(train: Sequence[Example] | Sequence[Problem]) -> dict[str, Fraction]:
    """Tokens of a row on average, of each source."""
    return {name: Fraction(tokens_of(rows), len(rows)) for name, rows in by_source(train).items()}


def mean_tokens(train: Sequence[Example] | Sequence[Problem], mixed: Mixed | None, run: int) -> float:
    """Of a row, as often as the run reads those of its source."""
    means, rows = _tokens(train), {name: len(rows) for name, rows in by_source(train).items()}
    read = rows if mixed is None else dict(zip(mixed.names, mixed.counts(run), strict=True))
    return float(sum(means[name] * count for name, count in read.items()) / sum(read.values()))


def told(data: DataConfig, mixed: Mixed | None, rows: int, run: int) -> dict[str, Any]:
    """Rows of a plan: the sources, what is read of each, and when; of one source the passes over its rows."""
    if mixed is None:
        return {"passes over the data": round(run / rows, 2)}
    train_mix = data.train if isinstance(data.train, Mixture) else None
    phases = list(train_mix.phases) if train_mix is not None and train_mix.phases else list(WHOLE)
    read_of = dict(zip(mixed.names, zip(mixed.sizes, mixed.counts(run), strict=True), strict=True))
    found: dict[str, Any] = {
        "sources": {
            name: f"{there:,} rows, {count:,} read ({count / there:.2f} passes)" for name, (there, count) in read_of.items()
        }
    }
    unit = "tokens" if train_mix is not None and train_mix.unit == "tokens" else "rows"
    for phase in phases:
        shares = ", ".join(f"{name} {100 * float(share):.4g} %" for name, share in shares_in(data, phase).items())
        named = f"shares of {unit}" + (f" until {phase.until:g} of the steps" if len(phases) > 1 else "")
        found[named] = shares
    return found | ({"exhausted": "stop: no row is read twice"} if train_mix and train_mix.exhausted == "stop" else {})
