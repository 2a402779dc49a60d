"""`make label-free-study`: rewards without labels against the true one, from the quickstart's SFT model, three seeds.

Writes the figures into docs/label_free.md. Every run has 60 GRPO steps of 32 questions × 16 rollouts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml

from posttrain import load_recipe, run

SEEDS = (0, 1, 2)
STARTS = {"SFT 1500 steps": 1500, "SFT 250 steps": 250}
PATTERN = {"form": "pattern", "pattern": "[0-9]*#[0-9]"}
WATCH = {"name": "task", "weight": 0.0, "verdict": True}
RUNS: list[tuple[str, str, list[dict[str, Any]], float]] = [
    ("SFT 1500 steps", "gold", [{"name": "task"}], 3e-4),
    ("SFT 1500 steps", "majority vote", [{"name": "majority_vote"}, WATCH], 3e-4),
    ("SFT 1500 steps", "format and length, p = 0.5", [{"name": "format_length", **PATTERN}, WATCH], 1e-4),
    ("SFT 1500 steps", "format and length, p = 0.5", [{"name": "format_length", **PATTERN}, WATCH], 3e-4),
    ("SFT 1500 steps", "format and length, p = 0.9", [{"name": "format_length", "peak": 0.9, **PATTERN}, WATCH], 3e-4),
    ("SFT 1500 steps", "format alone", [{"name": "format", **PATTERN}, WATCH], 3e-4),
    ("SFT 250 steps", "gold", [{"name": "task"}], 3e-4),
    ("SFT 250 steps", "majority vote", [{"name": "majority_vote"}, WATCH], 3e-4),
]
POINTS = (0, 20, 40, 60)
FIGURES = "## Figures"
SHOWN = ("reward/mean", "reward/right_minus_wrong", "rollout/most_common_answer", "rollout/length")


def _recipe(folder: Path, name: str, changes: dict[str, Any]) -> Path:
    values = yaml.safe_load(Path("recipes/quickstart.yaml").read_text())
    stages = values.pop("stages")
    stage = stages[0] if changes["algorithm"]["name"] == "sft" else stages[1]
    merged = {**values, **stage, **changes}
    merged["training"] = {**values["training"], **stage["training"], **changes["training"], "save_every": 0}
    merged["eval"] = {**values["eval"], "every": 20} if "rollout" in merged else values["eval"]
    merged["output_dir"] = str(folder / name)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(merged))
    return path


def start(folder: Path, seed: int, steps: int) -> None:
    """SFT, as in the quickstart."""
    changes = {"algorithm": {"name": "sft"}, "training": {"max_steps": steps}, "seed": seed}
    run(load_recipe(_recipe(folder, f"start-{steps}-{seed}", changes)))


def train(folder: Path, seed: int, number: int) -> dict[str, Any]:
    """One run, and what came of it at each point."""
    begun, _, rewards, rate = RUNS[number]
    changes = {
        "model": {"name": str(folder / f"start-{STARTS[begun]}-{seed}" / "final")},
        "algorithm": {"name": "grpo", "kl_coef": 0.0},
        "rewards": rewards,
        "training": {"learning_rate": rate},
        "seed": seed,
    }
    name = f"run-{number}-{seed}"
    run(load_recipe(_recipe(folder, name, changes)))
    evaluations = [json.loads(line) for line in (folder / name / "eval.jsonl").read_text().splitlines()]
    steps = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    last = {key: _late(steps, key) for key in SHOWN}
    return {
        "number": number, "seed": seed,
        "held_out": {e["step"]: e["eval/held_out/pass@1"] for e in evaluations},
        "ood": {e["step"]: e["eval/ood/pass@1"] for e in evaluations}, **last,
    }  # fmt: skip


def _late(steps: list[dict[str, Any]], key: str) -> float:
    """The mean over the last ten steps that have it."""
    values = [step[key] for step in steps[-10:] if key in step]
    return sum(values) / len(values) if values else float("nan")


def _table(results: list[dict[str, Any]]) -> str:
    head = (
        "| start | reward | lr | seed | "
        + " | ".join(f"step {p}" for p in POINTS)
        + " | ood, 0 → 60 | reward | right - wrong | same answer | length |"
    )
    rows = [head, "|" + "---|" * (head.count("|") - 1)]
    for one in sorted(results, key=lambda one: (one["number"], one["seed"])):
        begun, reward, _, rate = RUNS[one["number"]]
        held, ood = one["held_out"], one["ood"]
        cells = [
            begun,
            reward,
            f"{rate:.0e}",
            one["seed"],
            *(f"{held[p]:.3f}" for p in POINTS),
            f"{ood[0]:.2f} → {ood[60]:.2f}",
        ]
        rows.append("| " + " | ".join(map(str, [*cells, *(f"{one[key]:.2f}" for key in SHOWN)])) + " |")
    return "\n".join(rows)


def main() -> None:
    """Runs all, two at a time, and writes the page's figures."""
    with tempfile.TemporaryDirectory() as name, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        folder = Path(name)
        started = [pool.submit(start, folder, seed, steps) for steps in STARTS.values() for seed in SEEDS]
        for one in started:
            one.result()
        trained = [pool.submit(train, folder, seed, number) for number in range(len(RUNS)) for seed in SEEDS]
        results: list[dict[str, Any]] = []
        for one in trained:
            results.append(one.result())
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    page = Path("docs/label_free.md")
    text = page.read_text().partition(FIGURES)[0] if page.exists() else "# Rewards without labels\n\n"
    explained = (
        "Held-out pass@1, 256 questions × 4 samples, at steps of GRPO; `ood` has longer questions. The last four columns are "
        "means over the last ten steps: the reward that is trained on, the mean reward of right answers less that of wrong "
        "ones, the share of the most frequent answer, tokens."
    )
    page.write_text(f"{text}{FIGURES}\n\n{explained}\n\n{_table(results)}\n")


if __name__ == "__main__":
    main()
