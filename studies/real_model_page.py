"""What `studies/real_model.py` measured, and the figures of docs/real_models.md made of it.

    python studies/real_model_page.py

writes the page again from the committed results.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scipy import stats

from posttrain.execution.evaluation import estimate

RESULTS, PAGE = Path("studies/real_model.json"), Path("docs/real_models.md")
RATES, SEEDS = (3e-4, 1e-3, 3e-3), (0, 1, 2, 3, 4)


HEAD = """# A real model before and after a few steps

`make real-study` wrote this page, on 2 CPU cores: SmolLM2-135M-Instruct (`make real-models`; its weights were quantised
to four bits before they came here), asked through its own chat template, with the system prompt that the template puts
there, and trained by SFT with a LoRA adapter of rank 8. `posttrain run` trains, `posttrain eval` answers, greedily.

- **sums**: "What is 83 + 58? Reply with the number only.", answered by "141". 8 steps of 16 rows; 512 sums of two-digit
  numbers to train on, 96 others to choose the rate by and 96 others to measure with; no pair of numbers is in two of
  these. An answer counts if it came to its end within 32 tokens and its last whole number is the sum; and in lines of
  their own, if it is the number and nothing else, as was asked.
- **GSM8K**: 8 steps of 4 rows of its training part; the mean negative log-prob of a token of 32 held-out solutions,
  each solution alike, by plain transformers from `final/`.

The rate is the best of three for each, on seed 100 and rows that are not measured with. Intervals of a seed are paired
bootstraps over questions, those over seeds are Student's. The other seeds start from the same model and differ in their
rows, their order and the adapter's first weights.

## Figures
"""


@dataclass
class Results:
    """Everything that was measured; per question or row, so that differences are paired."""

    rates: dict[str, dict[str, float]] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)


def gain(after: Sequence[float], before: Sequence[float], sign: float = 1.0) -> tuple[float, float, float]:
    """Mean of the paired differences and its 95 % bootstrap interval over questions."""
    found = estimate([sign * (a - b) for a, b in zip(after, before, strict=True)])
    return found.mean, found.low, found.high


def figures(results: Results) -> Iterable[str]:
    """The lines between the page's marks."""
    scores, mean = results.scores, statistics.fmean
    yield "| rate, on seed 100 | " + " | ".join(f"{rate:g}" for rate in RATES) + " |"
    yield "|" + "---|" * (len(RATES) + 1)
    for arm, what in (("sums", "share right"), ("gsm8k", "nats a token")):
        yield f"| {arm}, {what} | " + " | ".join(f"{results.rates[arm][f'{rate:g}']:.3f}" for rate in RATES) + " |"
    yield ""
    yield "| | seed | start | after | gain, paired 95 % interval |"
    yield "|---|---|---|---|---|"
    for name, what, sign, form in (
        ("sums", "sums, last number right", 1.0, "{:.3f}"),
        ("sums alone", "sums, the number and nothing else", 1.0, "{:.3f}"),
        ("gsm8k", "GSM8K, nats a token", -1.0, "{:.4f}"),
    ):
        start = scores[f"{name}/start"]
        for seed in SEEDS:
            after = scores[f"{name}/{seed}"]
            cells = (form.format(mean(start)), form.format(mean(after)), _interval(form, *gain(after, start, sign)))
            yield f"| {what} | {seed} | " + " | ".join(cells) + " |"
        yield f"| {what} | over {len(SEEDS)} seeds | | | {_interval(form, *over_seeds(results, name, sign))} |"
    yield ""
    for name in ("start", "seed 0"):
        found, cut = scores[f"gsm8k right/{name}"], scores[f"gsm8k cut off/{name}"]
        low, high = stats.binomtest(int(sum(found)), len(found)).proportion_ci(method="exact")
        yield (
            f"GSM8K, greedy, {name}: {sum(found):.0f} of {len(found)} right [{low:.2f}, {high:.2f}], "
            f"{sum(cut):.0f} cut off at 160 tokens.  "
        )
    if "sums/grpo" in scores:
        yield ""
        told = _interval("{:.3f}", *gain(scores["sums/grpo"], scores["sums/0"]))
        before, after = mean(scores["sums/0"]), mean(scores["sums/grpo"])
        yield f"Pilot, one seed: GRPO, 100 steps from seed 0's model of sums: {before:.3f} → {after:.3f}, {told}."


def over_seeds(results: Results, name: str, sign: float) -> tuple[float, float, float]:
    """Mean gain of the seeds and its 95 % interval, by Student's t."""
    means = [gain(results.scores[f"{name}/{seed}"], results.scores[f"{name}/start"], sign)[0] for seed in SEEDS]
    mean = statistics.fmean(means)
    half = float(stats.t.ppf(0.975, len(means) - 1)) * statistics.stdev(means) / len(means) ** 0.5
    return mean, mean - half, mean + half


def _interval(form: str, mean: float, low: float, high: float) -> str:
    return f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"


def write_page(results: Results) -> None:
    """The whole page."""
    PAGE.write_text("\n".join([HEAD, *figures(results)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_page(Results(**json.loads(RESULTS.read_text())))
