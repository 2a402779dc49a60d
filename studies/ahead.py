"""`make ahead-check`: GRPO on the quickstart's task with rollouts sampled 0, 1 and 2 collections ahead, from one start model,
the vLLM server and the sampler on one core and the trainer on another.

Three parts, which `--only` runs singly: learn (held-out pass@1 rises), kill (what is killed goes on to the last bit) and time
(steps a minute, and what ran beside what). Each writes its passage of docs/ahead.md. Ends with 1 where a run does not learn,
ends as another one after a kill, leaves a process, or does not overlap.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from ahead_timeline import WINDOW, Clock, overlap, spans, timeline

from posttrain import VLLMConfig, VLLMEngine, load_recipe, run
from posttrain.errors import PosttrainError
from posttrain.model.load import load
from posttrain.settings.model import ModelConfig
from posttrain.train.watch.records import JsonLines

QUICKSTART, PAGE, FIGURES = Path(__file__).parents[1] / "recipes" / "quickstart.yaml", Path("docs/ahead.md"), "## Figures"
SAMPLING_CORE, TRAINING_CORE = 0, 1
SFT_STEPS, STEPS, AHEAD = 800, 16, (0, 1, 2)
KILLED_STEPS, KILLS = 9, ((3, "trainer"), (6, "sampler"))
QUESTIONS, KILLED_QUESTIONS, ROLLOUTS = 32, 8, 8
SETTLED = 5  # the first steps, which wait for what is sampled from the start's weights, are not timed


@dataclass
class Ground:
    """What the parts share: a start model, a server that runs, and the runs of so many steps, each made once."""

    folder: Path
    start: Path
    vllm: dict[str, Any]
    steps: int
    runs: dict[int, Path] = field(default_factory=dict[int, Path])

    def recipe(self, name: str, ahead: int, *, questions: int = QUESTIONS, evaluated: bool = True, **training: Any) -> Path:
        """The quickstart's second stage, corrected for what older weights have sampled."""
        found = of_quickstart(1, training={"lr_scheduler_type": "constant", "save_every": 0, **training})
        if not evaluated:
            found["data"].pop("eval")
            found.pop("eval")
        found["model"] = {"name": str(self.start)}
        found["algorithm"]["correction"] = {"level": "token", "cap": 2.0}
        found["rollout"] = {
            "questions_per_step": questions,
            "n": ROLLOUTS,
            "max_tokens": 14,
            "log_completions": 0,
            "engine": "vllm",
        }
        found["rollout"] |= {"vllm": self.vllm, "ahead": ahead}
        found["training"] |= {"rows_per_step": questions * ROLLOUTS}
        return written(found, self.folder / name)

    def run(self, ahead: int) -> Path:
        """The folder of a run to its end."""
        if ahead not in self.runs:
            recipe = self.recipe(f"ahead-{ahead}", ahead, max_steps=self.steps)
            trained(recipe)
            self.runs[ahead] = recipe.with_suffix("")
        return self.runs[ahead]


def of_quickstart(stage: int, **changes: Any) -> dict[str, Any]:
    """One of its stages as a recipe, without the set of longer questions."""
    found = yaml.safe_load(QUICKSTART.read_text())
    kept = found.pop("stages")[stage]
    found["data"]["eval"].pop("ood")
    training = {**found["training"], **kept["training"], **changes.pop("training")}
    return {**found, **kept, "training": training, **changes}


def written(recipe: dict[str, Any], folder: Path) -> Path:
    """A recipe as a file beside the folder of its run."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**recipe, "output_dir": str(folder)}))
    return path


def started(recipe: Path) -> subprocess.Popen[bytes]:
    """A trainer in a process of its own, on its core; what it says is in a file beside its recipe."""
    command = [sys.executable, __file__, "--train", str(recipe)]
    with recipe.with_suffix(".log").open("ab") as said:
        return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=said, stderr=said)


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
        said = recipe.with_suffix(".log").read_text(errors="replace")
        raise SystemExit(f"{said[-3000:]}\n{recipe}: exit code {trainer.returncode}")


def killed(recipe: Path) -> list[int]:
    """The same with a trainer and a sampler killed on the way; the exit codes.

    Raises:
        SystemExit: a sampler outlived its trainer.
    """
    codes: list[int] = []
    for step, who in KILLS:
        trainer, sampler = started(recipe), None
        while trainer.poll() is None and len(JsonLines(recipe.with_suffix("") / "metrics.jsonl").read()) < step:
            sampler = sampler_of(trainer)
            time.sleep(0.02)
        if sampler is None or trainer.poll() is not None:
            raise SystemExit(f"{recipe}: it ended with {trainer.poll()} before it was killed")
        os.kill(trainer.pid if who == "trainer" else sampler.pid, signal.SIGKILL)
        codes.append(trainer.wait())
        if psutil.wait_procs([sampler], timeout=5)[1]:
            raise SystemExit(f"{recipe}: the sampler outlived its trainer")
    trained(recipe)
    return codes


def learn(ground: Ground) -> tuple[bool, str]:
    """Held-out pass@1 before and after, for each."""
    heads = ["ahead", "pass@1 before", "after", "lag, steps", "effective sample size"]
    table, rises = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], list[bool]()
    for ahead in AHEAD:
        folder = ground.run(ahead)
        first, *_, last = JsonLines(folder / "eval.jsonl").read()
        rest = JsonLines(folder / "metrics.jsonl").read()[SETTLED:]
        lag, size = (mean(rest, f"rollout/{name}") for name in ("lag", "effective_sample_size"))
        before, after = (_interval(line, "eval/held_out/pass@1") for line in (first, last))
        table.append(f"| {ahead} | {before} | {after} | {lag:.1f} | {size:.4f} |")
        rises.append(last["eval/held_out/pass@1/low"] > first["eval/held_out/pass@1/high"])
    said = (
        f"{ground.steps} steps of {QUESTIONS} questions × {ROLLOUTS} rollouts from a model of {SFT_STEPS} steps of SFT, one "
        "seed; sampled pass@1 of 256 questions × 4 answers, with 95 % bootstrap intervals over questions."
    )
    return all(rises), "\n\n".join([said, "\n".join(table)])


def _interval(line: Mapping[str, float], name: str) -> str:
    return f"{line[name]:.3f} [{line[f'{name}/low']:.3f}, {line[f'{name}/high']:.3f}]"


def kill(ground: Ground) -> tuple[bool, str]:
    """Whether runs of which both processes were killed end as those that were not."""
    said, same = list[str](), list[bool]()
    for ahead in AHEAD[1:]:
        options = {"questions": KILLED_QUESTIONS, "evaluated": False, "max_steps": KILLED_STEPS, "save_every": 2}
        whole, other = (ground.recipe(f"{name}-{ahead}", ahead, **options) for name in ("whole", "killed"))
        trained(whole)
        codes = killed(other)
        same.append(outcome(whole.with_suffix("")) == outcome(other.with_suffix("")))
        ended = zip(KILLS, codes, strict=True)
        ends = " and ".join(f"the {who} after step {step} (exit code {code})" for (step, who), code in ended)
        result = "the same final weights, completions and metrics to the last bit" if same[-1] else "ANOTHER RESULT"
        said.append(f"- `ahead: {ahead}`, SIGKILL of {ends}: {result}; no process was left.")
    how = (
        f"{KILLED_STEPS} steps of {KILLED_QUESTIONS} questions × {ROLLOUTS} rollouts, a checkpoint at every second; killed, "
        "and the same command again, against a run that was left alone:"
    )
    return all(same), "\n\n".join([how, "\n".join(said)])


def outcome(folder: Path) -> tuple[bytes, list[str], list[dict[str, Any]]]:
    """The final weights, the completions, and the metrics but for times."""
    lines = JsonLines(folder / "metrics.jsonl").read()
    return (
        (folder / "final" / "model.safetensors").read_bytes(),
        [path.read_text() for path in sorted((folder / "completions").iterdir())],
        [{name: value for name, value in line.items() if "second" not in name} for line in lines],
    )


def clock(ground: Ground) -> tuple[bool, str]:
    """Steps a minute with `ahead: 1` against 0, and both timelines."""
    heads = ["ahead", "steps a minute", "sampling, s", "training, s", "waited, s", "training beside which was sampled"]
    table, pictures, shares = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"], list[str](), list[float]()
    for ahead in AHEAD[:2]:
        folder = ground.run(ahead)
        steps, lines = spans(folder), JsonLines(folder / "metrics.jsonl").read()[SETTLED:]
        later = steps[SETTLED:]
        rate = 60 * len(later) / (later[-1].trained[1] - steps[SETTLED - 1].trained[1])
        training = sum(step.trained[1] - step.trained[0] for step in later) / len(later)
        sampling = mean(lines, "rollout/seconds") + mean(lines, "rollout/sync_seconds")
        waited = mean(lines, "rollout/waited_seconds") if ahead else sampling
        shares.append(overlap(later))
        table.append(f"| {ahead} | {rate:.1f} | {sampling:.2f} | {training:.2f} | {waited:.2f} | {shares[-1]:.0%} |")
        pictures.append(f"`ahead: {ahead}`\n\n{timeline(steps)}")
    said = (
        f"Means of steps {SETTLED + 1} to {ground.steps}; sampling has the sync of the weights in it. The load of the "
        f"machine was {os.getloadavg()[1]:.1f} (2 is this study alone; above it the rows do not compare)."
    )
    seen = f"{WINDOW:g} seconds from the middle of each; a digit is the step that is sampled for, or trained:"
    return shares[0] < 0.01 < shares[1], "\n\n".join([said, "\n".join(table), seen, *pictures])


def mean(lines: Sequence[Mapping[str, float]], name: str) -> float:
    """Of a metric; 0 where it is not there."""
    return sum(line.get(name, 0.0) for line in lines) / len(lines)


PARTS: dict[str, tuple[str, Callable[[Ground], tuple[bool, str]]]] = {
    "learn": ("### It learns", learn),
    "kill": ("### What is killed goes on", kill),
    "time": ("### One beside the other", clock),
}


def machine() -> str:
    """The processor's name, and how many cores there are."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def note(page: Path, part: str, said: str) -> None:
    """Puts a part's passage in its place on the page, in the order of the parts."""
    text, _, figures = page.read_text().partition(FIGURES)
    passages = {head: "" for head, _ in PARTS.values()}
    for passage in figures.split("\n### ")[1:]:
        passages["### " + passage.partition("\n")[0]] = passage.partition("\n")[2].strip()
    passages[PARTS[part][0]] = said
    where = (
        "`make ahead-check`, or a part of it with `only=learn`, `kill` or `time`: one vLLM server (CPU, float32) with the "
        "sampler on one core, the trainer on another, one thread each. Each passage says on what machine."
    )
    kept = [f"{head}\n\n{passage}" for head, passage in passages.items() if passage]
    page.write_text("\n\n".join([text.rstrip(), FIGURES, where, *kept]) + "\n")


def main() -> None:
    """Trains, and writes the page's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the runs that learn and are timed")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--train", type=Path, help="a recipe, which is trained here")
    options = parser.parse_args()
    if options.train is not None:
        os.sched_setaffinity(0, {TRAINING_CORE})
        recipe = load_recipe(options.train)
        try:
            run(recipe, listeners=[Clock(Path(recipe.output_dir))])
        except PosttrainError as error:
            print(error)
            sys.exit(error.exit_code)
        return
    failed = list[str]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sft = written(of_quickstart(0, training={"max_steps": SFT_STEPS, "save_every": 0}), folder / "start")
        start = run(load_recipe(sft)).output_dir / "final"
        os.sched_setaffinity(0, {SAMPLING_CORE})  # the server's too, which is started from here
        engine = VLLMEngine(*load(ModelConfig(name=str(start), dtype="float32"), seed=0), VLLMConfig(mode="server"))
        vllm = {"mode": "server", "url": engine.served().config.urls[0], "weights_folder": str(folder / "weights")}
        ground = Ground(folder, start, vllm, options.steps)
        try:
            for part in [options.only] if options.only else PARTS:
                began = time.monotonic()
                right, said = PARTS[part][1](ground)
                print(f"{part}, {time.monotonic() - began:.0f} s\n{said}\n", flush=True)
                note(options.page, part, f"{machine()}. {said}")
                failed += [] if right else [part]
        finally:
            engine.close()
    sys.exit(f"not as it must be: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
