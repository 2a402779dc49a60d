"""What the benchmark must show, figure by figure, and the curves that are drawn. No torch here: the table is made of this."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from results import Key, Result, by_run

Kind = Literal["ratio", "peak_ratio", "growth", "share", "figure"]
Clock = Literal["user", "wall"]
TIMES = ("ratio", "growth")
"""Kinds that both clocks have."""


@dataclass(frozen=True)
class Target:
    """One figure. `case` and `against` name the row that has it.

    ratio, peak_ratio: how many times the cost, or memory, of ours that of `against` is; at least `bound`. growth: how many
    times ours in `case` costs what it costs in `start`; at most `bound`. share: of the time. figure: the one of that name in
    the row, or the row's own of that name, in `unit`. Both are at most `bound`, where `least` does not say otherwise.

    gate: the clock that must meet it, where it is of time: of the processor outside the kernel, or the one on the wall. A
    growth must by both.
    """

    what: str
    case: str
    against: str
    kind: Kind
    bound: float
    start: str = ""
    figure: str = ""
    unit: str = "×"
    least: bool = False
    gate: Clock = "user"

    @property
    def is_least(self) -> bool:
        """Whether the figure must be at least the bound; else at most."""
        return self.least or self.kind in ("ratio", "peak_ratio")

    def reached(self, results: Mapping[Key, Result]) -> float | None:
        """The figure that is held to the bound, or None where it was not measured or parity failed."""
        if self.kind != "growth":
            return self.on(self.gate, results)
        clocks = [self.on("user", results), self.on("wall", results)]
        return None if None in clocks else max(filter(None, clocks))

    def on(self, clock: Clock, results: Mapping[Key, Result]) -> float | None:
        """The figure by a clock; what is not of time is the same by both."""
        row = results.get((self.case, self.against))
        if row is None:
            return None
        if self.kind == "growth":
            start = results.get((self.start, self.against))
            small, large = (None if one is None else getattr(one, clock) for one in (start, row))
            return large / small if small and large else None
        if self.kind == "ratio":
            return row.ratio if clock == "user" else row.ratio_wall
        if self.kind == "figure":
            return row.figures.get(self.figure, getattr(row, self.figure, None))
        return getattr(row, self.kind)

    def is_met(self, figure: float) -> bool:
        """Whether it is what must be shown."""
        return figure >= self.bound if self.is_least else figure <= self.bound

    def parity_failed(self, results: Mapping[Key, Result]) -> bool:
        """Whether a row that it is of computes something else."""
        rows = [results.get((self.case, name)) for name in ("ours", self.against)]
        return any(row is not None and row.agrees is False for row in rows)


@dataclass(frozen=True)
class Verdict:
    """What several runs say of a target.

    outside, by_clock: the worst figure by each clock. missed: how many of `runs` miss the bound; a run in which it was not
    measured is none. parity_failed: in one of them at least.
    """

    target: Target
    outside: float | None
    by_clock: float | None
    missed: int
    runs: int
    parity_failed: bool

    def told(self) -> str:
        """For the terminal."""
        target = self.target
        found = "parity failed" if self.parity_failed else amount(target, self.outside)
        found += f" outside the kernel, {amount(target, self.by_clock)} by the clock" if target.kind in TIMES else ""
        return f"{target.what}, {target.against}: {found}, must be {bound(target)}"


def amount(target: Target, figure: float | None) -> str:
    """A figure with its unit."""
    if figure is None:
        return "not measured"
    number = figure * {"%": 100, "GB": 1e-9, "ms": 1e3}.get(target.unit, 1)
    shape = {"×": ".2f", "%": ".1f", "": ",.0f"}.get(target.unit, ".3g")
    return f"{number:{shape}} {target.unit}".rstrip()


def bound(target: Target) -> str:
    """What must be."""
    number, _, unit = amount(target, target.bound).partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{'at least' if target.is_least else 'at most'} {number} {unit}".rstrip()


def verdicts(results: Iterable[Result], targets: Iterable[Target]) -> list[Verdict]:
    """On each target."""
    runs = by_run(results)
    return [_verdict(target, runs) for target in targets]


def judged(results: Iterable[Result], targets: Iterable[Target], *, held: bool) -> tuple[list[str], bool]:
    """A line on each target, and whether one is missed or was not measured. Not held: they are only shown, and none fails."""
    found = [(verdict, bool(verdict.missed or not verdict.runs)) for verdict in verdicts(results, targets)]
    words = {True: "MISSED", False: "met"} if held else dict.fromkeys((True, False), "not held")
    return [f"{words[fails]:8s}  {verdict.told()}" for verdict, fails in found], held and any(fails for _, fails in found)


def _verdict(target: Target, runs: Sequence[Mapping[Key, Result]]) -> Verdict:
    failed = sum(target.parity_failed(run) for run in runs)
    reached = [figure for run in runs if (figure := target.reached(run)) is not None]
    worst = min if target.is_least else max

    def worst_on(clock: Clock) -> float | None:
        seen = (figure for run in runs if (figure := target.on(clock, run)) is not None)
        return worst(seen, default=None)

    missed = failed + sum(not target.is_met(figure) for figure in reached)
    return Verdict(target, worst_on("user"), worst_on("wall"), missed, failed + len(reached), failed > 0)


def _heads() -> list[Target]:
    bounds = {"TRL": 4.0, "three products": 0.9, "torch linear_cross_entropy": 1 / 1.1}
    return [
        Target(f"output layer alone, V = {size} k", f"head-{size}k", against, "ratio", least)
        for size in (32, 152)
        for against, least in bounds.items()
    ]


def _faults() -> list[Target]:
    what = "page faults of a head's call, V = {} k"
    return [Target(what.format(v), f"head-{v}k", "ours", "figure", 100, figure="faults", unit="") for v in (32, 152)]


TARGETS: tuple[Target, ...] = (
    *_heads(),
    Target("SFT step, V = 8 k", "sft-8k", "TRL", "ratio", 5.0),
    Target("SFT step, V = 8 k", "sft-8k", "TRL packed", "ratio", 2.2),
    Target("SFT step, V = 32 k", "sft-32k", "TRL", "ratio", 5.0),
    Target("SFT step, V = 32 k", "sft-32k", "TRL packed", "ratio", 2.2),
    Target("GRPO update, prompt 128, group 8", "grpo-128", "TRL", "ratio", 5.0),
    Target("GRPO update, prompt 512, group 8", "grpo-512", "TRL", "ratio", 7.0),
    Target("DPO step, with the reference's forward", "dpo", "TRL", "ratio", 3.0),
    Target("whole `train()`, SFT", "train-sft", "TRL", "ratio", 4.0),
    Target("whole `train()`, DPO", "train-dpo", "TRL", "ratio", 2.5),
    Target("whole `train()`, GRPO with rollouts by transformers", "train-grpo", "TRL", "ratio", 3.0),
    Target("growth of our cost, prompt 64 → 512", "grpo-512", "ours", "growth", 2.2, start="prompt-64"),
    Target("peak memory, SFT step, V = 8 k", "sft-8k", "TRL", "peak_ratio", 3.0),
    Target("peak memory, SFT step, V = 32 k", "sft-32k", "TRL", "peak_ratio", 3.0),
    Target("peak memory, GRPO update, prompt 128", "grpo-128", "TRL", "peak_ratio", 3.0),
    Target("peak memory, GRPO update, prompt 512", "grpo-512", "TRL", "peak_ratio", 3.0),
    Target("peak memory, DPO step", "dpo", "TRL", "peak_ratio", 3.0),
    Target("time beside forward, backward, optimizer, SFT", "share-sft", "ours", "share", 0.05, unit="%"),
    Target("time beside those, engine and rewards, GRPO", "share-grpo", "ours", "share", 0.05, unit="%"),
    *_faults(),
    Target("bytes a token of a collection", "host", "ours", "figure", 12, figure="bytes a token", unit=""),
    Target("host's cost of 2,048 answers of up to 32 k tokens", "host", "ours", "figure", 3.0, figure="user", unit="s"),
    Target("memory of the same, above the start", "host", "ours", "figure", 1.2e9, figure="peak_bytes", unit="GB"),
)

GPU_HEADS = tuple((n, h, v) for h, v in ((896, 151936), (1536, 151936), (4096, 128256)) for n in (4096, 16384))
"""Output layers: positions, width and vocabulary."""
PEAK = 790e12
"""Floating-point operations a second of an H100's products in bfloat16."""
OF_PEAK = "share of 790 TFLOP/s"
GPU_TARGETS: tuple[Target, ...] = (
    *(
        Target(what + way[4:], case, way, "figure", 0.45, figure=OF_PEAK, unit="%", least=True)
        for what, case in (("SFT, 0.5 B, 16 k tokens packed", "sft-16k"), ("GRPO update, 1.5 B", "grpo-large"))
        for way in ("ours", "ours, layers compiled")
    ),
    *(
        Target(f"output layer, {n} × {h} × {v}", f"head-{n}-{h}-{v}", "three products", "ratio", 0.75, gate="wall")
        for n, h, v in GPU_HEADS
    ),
    Target("waits for the device in a step", "waits", "ours", "figure", 3, figure="waits a step", unit=""),
    *(
        Target(f"operations of a layer, {name}", f"layer-{name}", "ours", "figure", 150, figure="operations a layer", unit="")
        for name in ("sft", "grpo")
    ),
)
"""What an H100 must show, by the clock. An operation is a kernel at least."""


VOCABULARIES, LENGTHS = (4096, 16384, 65536), (128, 512, 2048)


@dataclass(frozen=True)
class Curve:
    """Cost against one size: the cases by that size."""

    axis: str
    explained: str
    cases: Mapping[int, str]


CURVES: tuple[Curve, ...] = (
    Curve(
        "prompt",
        "GRPO update, 2 questions of 8 answers, V = 4096",
        {64: "prompt-64", 128: "prompt-128", 256: "prompt-256", 512: "grpo-512"},
    ),
    Curve(
        "answers of a question",
        "GRPO update, 2 questions, prompt 128, V = 4096",
        {2: "group-2", 4: "group-4", 8: "prompt-128", 16: "group-16"},
    ),
    Curve("vocabulary", "SFT step, 8 documents of 128 tokens", {v: f"vocabulary-{v}" for v in VOCABULARIES}),
    Curve("tokens of a document", "SFT step, 2048 tokens in all, V = 4096", {n: f"length-{n}" for n in LENGTHS}),
)
