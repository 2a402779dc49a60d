"""`make chaos`: kills, signals, damaged files, full disks, bad rows and hostile answers, counted; writes docs/reliability.md.

Runs are started by fork from a process that has imported everything, so that a kill can come at any moment of a run of a
second. Whatever happens to it, a run that goes on must end as the one that was left alone: to the last bit of its weights,
and line by line in its metrics.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from posttrain import load_recipe, run
from posttrain.data.reader import Reader
from posttrain.data.sources import read
from posttrain.errors import CheckpointError, DataError, Interrupted
from posttrain.model.load import make_tokenizer
from posttrain.rewards.grading import MathVerify
from posttrain.settings.data import PathSource
from posttrain.train.checkpoint import folders as checkpoints

PAGE, HEADING = Path("docs/reliability.md"), "## Figures"
STEPS, KILLS, SIGNALS, ROWS, SEED = 12, 60, 40, 400, 7
ALGORITHMS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "grpo": {"updates": 2},
    "hpt": {"gate": 1},
    "prefix_rft": {"updates": 2},
}
HOSTILE = (
    "\\boxed{10^{10^{10}}}",
    "\\boxed{9^{9^{9^{9}}}}",
    "#### 7**300000000",
    "\\boxed{(10^7)!+1}",
    "\\boxed{\\binom{10^8}{10^7}}",
    "\\boxed{\\sum_{k=1}^{10^9}1/k}",
    "\\boxed{3^{10^8}}",
    "\\boxed{" * 4000,
    "(" * 20000,
    "\\boxed{\\int_0^1\\int_0^1\\sin(x^y)^{\\cos(y^x)}dxdy}",
    "#### __import__('os').system('touch CANARY')",
    "\\boxed{().__class__.__base__.__subclasses__()}",
)
CALLS = ((os, "fsync"), (os, "replace"), (shutil, "rmtree"), (Path, "mkdir"), (Path, "write_text"))


def recipe(folder: Path, name: str) -> Path:
    """A small run of an algorithm, with dropout, checkpoints at every second step and evaluations at every third."""
    rollouts = name not in ("sft", "dpo")
    data: dict[str, Any] = {"train": {"task": "chain", "rows": 64}, "chat_template": False}
    if name == "dpo":
        rows = ({"prompt": f"{i}+1=", "chosen": str(i + 1), "rejected": str(i)} for i in range(64))
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data["train"] = {"path": str(folder / "pairs.jsonl")}
    else:
        data["eval"] = {"held_out": {"task": "chain", "split": "held_out", "rows": 8}}
    values: dict[str, Any] = {
        "model": {
            "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1, "attention_dropout": 0.1},
            "tokenizer": "characters",
        },
        "data": data,
        "algorithm": {"name": name, **ALGORITHMS[name]},
        "training": {"max_steps": STEPS, "rows_per_step": 16, "save_every": 2, "learning_rate": 1e-3},
        "eval": {"every": 3, "samples": 0 if name == "dpo" else 1, "max_tokens": 8},
    }
    if rollouts:
        values["rollout"] = {"questions_per_step": 4, "n": 4, "max_tokens": 8}
        values["training"].pop("rows_per_step")
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def forked(do: Callable[[], None]) -> int:
    """The process of a child that does this; 0 at its end, 75 for `Interrupted`, 1 for any other error."""
    if child := os.fork():
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        do()
        code = 0
    except Interrupted:
        code = 75
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Its exit code."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def outcome(folder: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """Of a finished run: its weights, and its metrics without times."""
    lines = [json.loads(line) for name in ("metrics", "eval") for line in _lines(folder / f"{name}.jsonl")]
    kept = [{key: value for key, value in line.items() if "second" not in key} for line in lines]
    return (folder / "final" / "model.safetensors").read_bytes(), kept


def broken_off(folder: Path, name: str, signals: tuple[signal.Signals, ...], times: int, rng: random.Random) -> Counter[str]:
    """Breaks runs off at random moments, so many times in all, until each is done; counts what came of it."""
    path, counted = recipe(folder, name), Counter[str]()

    def go(output: Path) -> Callable[[], None]:
        return lambda: run(load_recipe(path, [f"output_dir={output}"])) and None

    began = time.monotonic()
    if ended(forked(go(folder / f"{name}-whole"))):
        raise SystemExit(f"{name}: the run that is left alone fails")
    seconds, expected = time.monotonic() - began, outcome(folder / f"{name}-whole")
    while counted["broken off"] < times:
        output = folder / f"{name}-{signals[0].name}-{counted['runs']}"
        for attempt in range(200):
            child = forked(go(output))
            if attempt < 4:
                time.sleep(rng.uniform(0.05, seconds))
                by = rng.choice(signals)
                os.kill(child, by)
                counted["broken off"] += 1
            code = ended(child)
            if code == 0:
                break
            if code not in (75, -signal.SIGKILL):
                raise SystemExit(f"{name}: exit code {code} after {counted}")
        counted["runs"] += 1
        counted["lost or changed"] += outcome(output) != expected
        shutil.rmtree(output)
    return counted


def disk(folder: Path, fault: Callable[[], None]) -> tuple[int, int]:
    """Faults before every call that changes the disk while a checkpoint is written: how many, and how often none was left."""

    def fill(staging: Path) -> None:
        staging.mkdir()
        (staging / "states").mkdir()
        for name in ("model", "states/rank_0"):
            (staging / name).write_text(name * 1000)

    tried = lost = 0
    while True:
        target, seen = folder / f"disk-{tried}", 0
        checkpoints.write(target, 1, lambda staging: fill(staging / "files"), {})

        def write(number: int = tried + 1, target: Path = target) -> None:
            nonlocal seen
            for owner, name in CALLS:
                honest = getattr(owner, name)

                def called(*arguments: Any, honest: Callable[..., Any] = honest, **options: Any) -> Any:
                    nonlocal seen
                    seen += 1
                    if seen == number:
                        fault()
                    return honest(*arguments, **options)

                setattr(owner, name, called)
            try:
                checkpoints.write(target, 2, lambda staging: fill(staging / "files"), {}, keep=1)
            except CheckpointError:
                os._exit(8)

        if ended(forked(write)) == 0:
            return tried, lost
        tried += 1
        lost += checkpoints.newest(target, lambda _: None) is None


def damaged(folder: Path) -> tuple[int, int]:
    """Truncates, flips a bit of, and deletes each file of a real checkpoint; how many, and how often it was not noticed."""
    path = recipe(folder, "sft")
    if ended(forked(lambda: run(load_recipe(path, [f"output_dir={folder / 'damaged'}"])) and None)):
        raise SystemExit("the run to be damaged fails")
    newest = folder / "damaged" / f"checkpoint-{STEPS}"
    files = [file for file in newest.rglob("*") if file.is_file() and file.name != checkpoints.MANIFEST]
    missed = 0
    for file in files:
        content = file.read_bytes()
        for harm in (content[:-1], bytes([content[0] ^ 1]) + content[1:], None):
            file.unlink() if harm is None else file.write_bytes(harm)
            missed += checkpoints.newest(folder / "damaged", lambda _: None) == newest
            file.write_bytes(content)
    return 3 * len(files), missed


def bad_rows(folder: Path, rng: random.Random) -> Counter[str]:
    """Data of which bytes were changed at random: what came of each file."""
    readers = [Reader(Encoding(on_bad_row=policy), make_tokenizer("bytes"), [257], 512) for policy in ("skip", "raise")]
    whole = "".join(json.dumps({"prompt": f"what is {i}?", "completion": f"it is {i}"}) + "\n" for i in range(6)).encode()
    counted = Counter[str]()
    for _ in range(ROWS):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(content))
            content[place : place + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        path = folder / "rows.jsonl"
        path.write_bytes(bytes(content))
        try:
            readers[rng.random() < 0.5].examples(read(PathSource(path=str(path))))
            counted["read, bad rows left out"] += 1
        except DataError:
            counted["refused by line"] += 1
    return counted


def hostile(folder: Path) -> tuple[int, float]:
    """Hostile answers from four threads: how many, and the longest time that one took, at a deadline of 2 s."""
    os.chdir(folder)
    grader, slowest = MathVerify(deadline=2.0), 0.0

    def judged(completion: str) -> float:
        began = time.monotonic()
        grade = grader.grade(completion, "", "18")
        if grade.verdict.value == "right":
            raise SystemExit(f"taken for right: {completion[:60]}")
        return time.monotonic() - began

    try:
        with ThreadPoolExecutor(4) as pool:
            slowest = max(pool.map(judged, HOSTILE * 4))
    finally:
        grader.close()
    if (folder / "CANARY").exists():
        raise SystemExit("a hostile answer was executed")
    return 4 * len(HOSTILE), slowest


def main() -> None:
    """Does all of it, and writes the figures."""
    rng, began, here, rows = random.Random(SEED), time.monotonic(), Path.cwd(), list[str]()

    def say(what: str, tried: int, came: str) -> None:
        rows.append(f"| {what} | {tried} | {came} |")
        print(rows[-1], flush=True)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for algorithm in ALGORITHMS:
            for what, signals, times in (
                ("SIGKILL", (signal.SIGKILL,), KILLS),
                ("SIGTERM, SIGINT, SIGUSR1", (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1), SIGNALS),
            ):
                found = broken_off(folder, algorithm, signals, times, rng)
                came = f"{found['runs']} runs went on to their end; lost or changed: {found['lost or changed']}"
                say(f"{what} at a random moment, `{algorithm}`", found["broken off"], came)
        tried, lost = disk(folder, lambda: os._exit(9))
        say("killed before a call that changes the disk, in a save", tried, f"no checkpoint left: {lost}")
        tried, lost = disk(folder, _no_space)
        say("disk full at a call that changes it, in a save", tried, f"no checkpoint left: {lost}")
        tried, missed = damaged(folder)
        say("files of a checkpoint truncated, changed by a bit, deleted", tried, f"taken for whole: {missed}")
        found = bad_rows(folder, rng)
        say("data files with bytes changed at random", ROWS, "; ".join(f"{what}: {n}" for what, n in sorted(found.items())))
        tried, slowest = hostile(folder)
        os.chdir(here)
        say(
            "hostile answers, four threads, a deadline of 2 s",
            tried,
            f"taken for right or executed: 0; slowest {slowest:.1f} s",
        )
    minutes = (time.monotonic() - began) / 60
    table = "\n".join(["| fault | times | what came of it |", "|---|---|---|", *rows])
    told = f"runs of {STEPS} steps with a checkpoint at every second"
    explained = f"`make chaos`, {minutes:.1f} minutes on two CPU cores, seed {SEED}; {told}."
    text = PAGE.read_text().partition(HEADING)[0].rstrip()
    PAGE.write_text("\n\n".join([text, HEADING, explained, table]) + "\n")


def _no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.is_file() else []


if __name__ == "__main__":
    sys.exit(main())
