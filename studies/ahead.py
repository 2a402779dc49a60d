"""`make ahead-check`: GRPO on the quickstart's task with rollouts sampled 0, 1 and 2 collections ahead, from one start model,
the vLLM server and the sampler on one core and the trainer on another. Writes the figures into docs/ahead.md.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from posttrain import VLLMConfig, VLLMEngine, load_recipe, run
from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from posttrain.train.watch.records import JsonLines, Listener

QUICKSTART, PAGE, FIGURES = Path(__file__).parents[1] / "recipes" / "quickstart.yaml", Path("docs/ahead.md"), "## Figures"
SAMPLING_CORE, TRAINING_CORE = 0, 1
SFT_STEPS, STEPS, KILLED_STEPS, KILLS = 1000, 40, 16, ((5, "trainer"), (10, "sampler"))
AHEAD = (0, 1, 2)
WINDOW, COLUMNS = 20.0, 100  # seconds of a timeline, and its width


class Clock(Listener):
    """Notes when each step had its rollouts, and when it was done."""

    def __init__(self, path: Path) -> None:
        self._file, self._took = JsonLines(path), 0.0

    def on_rollouts(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Of the collection that the step begins."""
        self._took = time.time()

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        """After the step."""
        self._file.append({"step": step, "took": self._took, "done": time.time()})


@dataclass(frozen=True)
class Span:
    """Of a step, in seconds since the epoch: when its rollouts were sampled, and when it was trained."""

    sampled: tuple[float, float]
    trained: tuple[float, float]


def values(**changes: Any) -> dict[str, Any]:
    """The quickstart's recipe without its stages."""
    found = yaml.safe_load(QUICKSTART.read_text())
    stages = found.pop("stages")
    found["data"]["eval"].pop("ood")
    kept = {"sft": stages[0], "grpo": stages[1]}[changes.pop("stage")]
    training = {**found["training"], **kept["training"], **changes.pop("training")}
    return {**found, **kept, "training": training, **changes}


def start_model(folder: Path) -> Path:
    """That of the quickstart's first stage, cut short."""
    return in_process(values(stage="sft", training={"max_steps": SFT_STEPS, "save_every": 0}), folder / "start") / "final"


def in_process(recipe: dict[str, Any], folder: Path) -> Path:
    """Trains here."""
    return run(load_recipe(written(recipe, folder))).output_dir


def written(recipe: dict[str, Any], folder: Path) -> Path:
    """A recipe as a file beside the folder of its run."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**recipe, "output_dir": str(folder)}))
    return path


def grpo(start: Path, vllm: dict[str, Any], ahead: int, **training: Any) -> dict[str, Any]:
    """The quickstart's second stage, corrected for what older weights have sampled."""
    rollout = {"questions_per_step": 32, "n": 8, "max_tokens": 14, "log_completions": 0, "engine": "vllm"}
    return values(
        stage="grpo",
        model={"name": str(start)},
        algorithm={"name": "grpo", "kl_coef": 0.0, "correction": {"level": "token", "cap": 2.0}},
        rollout={**rollout, "vllm": vllm, "ahead": ahead},
        training={"max_steps": STEPS, "save_every": 0, **training},
    )


def started(recipe: Path) -> subprocess.Popen[bytes]:
    """A trainer in a process of its own, on its core."""
    return subprocess.Popen([sys.executable, __file__, "train", str(recipe)], env={**os.environ, "OMP_NUM_THREADS": "1"})


def sampler_of(trainer: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The process that samples ahead for a trainer, if there is one yet; it is put onto the engine's core."""
    with contextlib.suppress(psutil.Error):  # a process may end while it is looked at
        for child in psutil.Process(trainer.pid).children():
            if any("ahead.child" in word for word in child.cmdline()):
                for thread in child.threads():
                    with contextlib.suppress(ProcessLookupError):
                        os.sched_setaffinity(thread.id, {SAMPLING_CORE})
                return child
    return None


def trained(recipe: Path) -> None:
    """Trains as the recipe says, to the end."""
    trainer = started(recipe)
    while trainer.poll() is None:
        sampler_of(trainer)
        time.sleep(0.5)
    if trainer.returncode:
        raise SystemExit(f"{recipe}: exit code {trainer.returncode}")


def killed(recipe: Path) -> list[int]:
    """The same with a trainer and a sampler killed on the way; the exit codes."""
    codes: list[int] = []
    folder = recipe.with_suffix("")
    for step, who in KILLS:
        trainer = started(recipe)
        while trainer.poll() is None and len(JsonLines(folder / "metrics.jsonl").read()) < step:
            sampler_of(trainer)
            time.sleep(0.02)
        sampler = sampler_of(trainer)
        os.kill(trainer.pid if who == "trainer" or sampler is None else sampler.pid, signal.SIGKILL)
        codes.append(trainer.wait())
        if sampler is not None:
            psutil.wait_procs([sampler], timeout=5)
            assert not sampler.is_running(), "the sampler outlived its trainer"
    trained(recipe)
    return codes


def spans(folder: Path) -> list[Span]:
    """Of the steps of a run."""
    found: list[Span] = []
    for clock, line in zip(JsonLines(folder / "clock.jsonl").read(), JsonLines(folder / "metrics.jsonl").read(), strict=True):
        end = clock["took"] - line.get("rollout/ready_seconds", 0.0)
        seconds = line["rollout/seconds"] + line["rollout/sync_seconds"]
        found.append(Span((end - seconds, end), (clock["took"], clock["done"])))
    return found


def overlap(steps: Sequence[Span]) -> float:
    """The share of the time of sampling in which a step was trained."""
    both = sum(
        max(0.0, min(one.sampled[1], other.trained[1]) - max(one.sampled[0], other.trained[0]))
        for one in steps
        for other in steps
    )
    return both / sum(end - begin for begin, end in (one.sampled for one in steps))


def timeline(steps: Sequence[Span]) -> str:
    """Two lines: which step is sampled, and which one is trained; by its last digit."""
    begin = steps[len(steps) // 2].trained[0]
    lines = {"sampled": [" "] * COLUMNS, "trained": [" "] * COLUMNS}
    for number, step in enumerate(steps, 1):
        for name, line in lines.items():
            first, last = (round((at - begin) / WINDOW * COLUMNS) for at in getattr(step, name))
            for place in range(max(first, 0), min(last + (last == first), COLUMNS)):
                line[place] = str(number % 10)
    return "\n".join(f"    {name} {''.join(line)}".rstrip() for name, line in lines.items())


def row(ahead: int, folder: Path) -> str:
    """A run as a row of the table."""
    evaluated = [line["eval/held_out/pass@1"] for line in JsonLines(folder / "eval.jsonl").read()]
    lines, steps = JsonLines(folder / "metrics.jsonl").read(), spans(folder)
    later, rest = steps[5:], lines[5:]  # the first ones wait for what is sampled from the start's weights
    minutes = (later[-1].trained[1] - steps[4].trained[1]) / 60
    mean = {
        name: sum(line.get(name, 0.0) for line in rest) / len(rest)
        for name in ("rollout/seconds", "rollout/waited_seconds", "rollout/lag", "rollout/effective_sample_size")
    }
    training = sum(step.trained[1] - step.trained[0] for step in later) / len(later)
    return (
        f"| {ahead} | {evaluated[0]:.3f} | {evaluated[-1]:.3f} | {len(later) / minutes:.1f} | "
        f"{mean['rollout/seconds']:.2f} | {training:.2f} | {overlap(later):.0%} | {mean['rollout/lag']:.1f} | "
        f"{mean['rollout/effective_sample_size']:.4f} |"
    )


def goes_on(start: Path, vllm: dict[str, Any], ahead: int, folder: Path) -> str:
    """Whether a run of which both processes were killed ends as one that was not, in words."""
    recipes = [
        written(grpo(start, vllm, ahead, max_steps=KILLED_STEPS, save_every=3), folder / f"{name}-{ahead}")
        for name in ("whole", "killed")
    ]
    trained(recipes[0])
    codes = killed(recipes[1])
    whole, other = (path.with_suffix("") for path in recipes)
    equal = (whole / "final" / "model.safetensors").read_bytes() == (other / "final" / "model.safetensors").read_bytes()
    names = [{k: v for k, v in line.items() if "second" not in k} for line in JsonLines(whole / "metrics.jsonl").read()]
    same = [{k: v for k, v in line.items() if "second" not in k} for line in JsonLines(other / "metrics.jsonl").read()]
    said = "the same final weights and metrics to the last bit" if equal and names == same else "ANOTHER RESULT"
    ended = zip(KILLS, codes, strict=True)
    ends = " and ".join(f"the {who} in step {step + 1} (exit code {code})" for (step, who), code in ended)
    return f"`ahead: {ahead}`, {KILLED_STEPS} steps, SIGKILL of {ends}: {said}."


def main() -> None:
    """Trains all, and writes the page's figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = start_model(folder)
        os.sched_setaffinity(0, {SAMPLING_CORE})  # the server's too, which is started from here
        engine = VLLMEngine(*load(ModelConfig(name=str(start), dtype="float32"), seed=0), VLLMConfig(mode="server"))
        vllm = {"mode": "server", "url": engine.served().config.urls[0], "weights_folder": str(folder / "weights")}
        try:
            table, pictures = list[str](), list[str]()
            for ahead in AHEAD:
                recipe = written(grpo(start, vllm, ahead), folder / f"ahead-{ahead}")
                trained(recipe)
                table.append(row(ahead, recipe.with_suffix("")))
                pictures.append(f"`ahead: {ahead}`\n\n{timeline(spans(recipe.with_suffix('')))}")
                print(table[-1], pictures[-1], sep="\n", flush=True)
            ends = [goes_on(start, vllm, ahead, folder) for ahead in AHEAD[1:]]
            print(*ends, sep="\n", flush=True)
        finally:
            engine.close()
    heads = ["ahead", "pass@1 before", "after", "steps a minute", "sampling, s", "training, s", "overlap", "lag, steps"]
    head = f"| {' | '.join([*heads, 'effective sample size'])} |\n|{'---|' * (len(heads) + 1)}"
    explained = (
        f"`make ahead-check`: {STEPS} steps of 32 questions × 8 rollouts from a model of {SFT_STEPS} steps of SFT, one seed; "
        "one vLLM server (CPU, float32) with the sampler on one core, the trainer on another, one thread each; load of the "
        f"machine {os.getloadavg()[2]:.1f} (2 is this study alone; above it, times of the rows do not compare). "
        "Overlap: the share of the time of sampling in which a step was trained. All but pass@1 from the sixth step on."
    )
    seen = f"{WINDOW:g} seconds of each, {COLUMNS} columns; a digit is the step that is sampled for, or trained:"
    figures = [FIGURES, explained, "\n".join([head, *table]), seen, *pictures, "\n".join(f"- {one}" for one in ends)]
    PAGE.write_text("\n\n".join([PAGE.read_text().partition(FIGURES)[0].rstrip(), *figures]) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        os.sched_setaffinity(0, {TRAINING_CORE})
        recipe = load_recipe(sys.argv[2])
        run(recipe, listeners=[Clock(Path(recipe.output_dir) / "clock.jsonl")])
    else:
        main()
