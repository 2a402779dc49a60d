"""`make quickstart-check`: the quickstart with three seeds; GRPO must add 25 points of held-out pass@1 to SFT, in the median.

Writes docs/quickstart.md. Ends with 1 where the gain is smaller.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from posttrain import RunResult, load_recipe, run

SEEDS = (0, 1, 2)
GAIN = 0.25
HEAD = """# The quickstart, three seeds

`make quickstart-check` wrote this page: `recipes/quickstart.yaml` with seeds 0, 1 and 2, on {cores}. Sampled pass@1 at
temperature 1, four answers to each of 256 questions, with 95 % bootstrap intervals over questions; `ood` has longer questions
than any that was trained on.

| seed | set | start | after SFT | after GRPO | seconds |
|---|---|---|---|---|---|
"""


def _cell(metrics: dict[str, float], name: str) -> str:
    key = f"eval/{name}/pass@1"
    return f"{metrics[key]:.3f} [{metrics[f'{key}/low']:.3f}, {metrics[f'{key}/high']:.3f}]"


def _rows(seed: int, result: RunResult, seconds: float) -> list[str]:
    points = [result.start_metrics, result.stages["sft"], result.stages["grpo"]]
    return [
        f"| {seed} | {name} | {' | '.join(_cell(metrics, name) for metrics in points)} | {seconds:.0f} |"
        for name in ("held_out", "ood")
    ]


def main() -> None:
    """Runs and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/quickstart.yaml")
    parser.add_argument("--hardware", default="2 CPU cores")
    parser.add_argument("--page", type=Path, default=Path("docs/quickstart.md"))
    options = parser.parse_args()
    rows: list[str] = []
    gains: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            started = time.monotonic()
            result = run(load_recipe(options.recipe, [f"seed={seed}", f"output_dir={folder}/{seed}"]))
            rows += _rows(seed, result, time.monotonic() - started)
            gains.append(result.stages["grpo"]["eval/held_out/pass@1"] - result.stages["sft"]["eval/held_out/pass@1"])
            print(rows[-2], rows[-1], sep="\n", flush=True)
    points = ", ".join(f"{100 * gain:.1f}" for gain in gains)
    summary = f"GRPO over SFT, held out: {points} points; the median is {100 * statistics.median(gains):.1f}."
    options.page.write_text(HEAD.format(cores=options.hardware) + "\n".join(rows) + f"\n\n{summary}\n")
    print(summary)
    sys.exit(statistics.median(gains) < GAIN)


if __name__ == "__main__":
    main()
