"""What the benchmark must show, figure by figure, and the curves that are drawn. No torch here: the table is made of this."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from results import Result

Kind = Literal["ratio", "peak_ratio", "growth", "share"]


@dataclass(frozen=True)
class Target:
    """One figure. `case` and `against` name the row that has it.

    ratio, peak_ratio: how many times the cost, or memory, of ours that of `against` is; at least `bound`. growth: how many
    times ours in `case` costs what it costs in `start`; below `bound`. share: of the time, below `bound`.
    """

    what: str
    case: str
    against: str
    kind: Kind
    bound: float
    start: str = ""

    @property
    def is_least(self) -> bool:
        """Whether the figure must be at least the bound; else below it."""
        return self.kind in ("ratio", "peak_ratio")

    def reached(self, results: Mapping[tuple[str, str], Result]) -> float | None:
        """The figure, or None where it was not measured or parity failed."""
        row = results.get((self.case, self.against if self.is_least else "ours"))
        if row is None:
            return None
        if self.kind == "growth":
            start = results.get((self.start, "ours"))
            if start is None or not (start.wall and start.cpu and row.wall and row.cpu):
                return None
            return max(row.wall / start.wall, row.cpu / start.cpu)
        return getattr(row, self.kind)

    def is_met(self, figure: float) -> bool:
        """Whether it is what must be shown."""
        return figure >= self.bound if self.is_least else figure < self.bound


def _heads() -> list[Target]:
    bounds = {"TRL": 4.0, "three products": 0.9, "torch linear_cross_entropy": 1 / 1.1}
    return [
        Target(f"output layer alone, V = {size} k", f"head-{size}k", against, "ratio", bound)
        for size in (32, 152)
        for against, bound in bounds.items()
    ]


TARGETS: tuple[Target, ...] = (
    *_heads(),
    Target("SFT step, V = 8 k", "sft-8k", "TRL", "ratio", 5.0),
    Target("SFT step, V = 8 k", "sft-8k", "TRL packed", "ratio", 2.2),
    Target("SFT step, V = 32 k", "sft-32k", "TRL", "ratio", 5.0),
    Target("SFT step, V = 32 k", "sft-32k", "TRL packed", "ratio", 2.2),
    Target("GRPO update, prompt 128, group 8", "grpo-128", "TRL", "ratio", 5.0),
    Target("GRPO update, prompt 512, group 8", "grpo-512", "TRL", "ratio", 7.0),
    Target("DPO step, with the reference's forward", "dpo", "TRL", "ratio", 3.0),
    Target("peak memory, SFT step, V = 8 k", "sft-8k", "TRL", "peak_ratio", 3.0),
    Target("peak memory, SFT step, V = 32 k", "sft-32k", "TRL", "peak_ratio", 3.0),
    Target("peak memory, GRPO update, prompt 128", "grpo-128", "TRL", "peak_ratio", 3.0),
    Target("peak memory, GRPO update, prompt 512", "grpo-512", "TRL", "peak_ratio", 3.0),
    Target("peak memory, DPO step", "dpo", "TRL", "peak_ratio", 3.0),
    Target("growth of our cost, prompt 64 → 512", "grpo-512", "ours", "growth", 2.2, start="prompt-64"),
    Target("whole `train()`, SFT", "train-sft", "TRL", "ratio", 4.0),
    Target("whole `train()`, DPO", "train-dpo", "TRL", "ratio", 2.5),
    Target("whole `train()`, GRPO with rollouts by transformers", "train-grpo", "TRL", "ratio", 3.0),
    Target("time beside forward, backward, optimizer, SFT", "share-sft", "ours", "share", 0.05),
    Target("time beside those, engine and rewards, GRPO", "share-grpo", "ours", "share", 0.05),
)

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
