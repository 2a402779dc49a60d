"""Millions of rows: what two starts of a run over them take, of time, disk and memory. What is made is deleted after.

    python benchmarks/large_data.py [--rows 5000000] [--folder /tmp]

The rows are additions with as many characters as they are to have tokens, by a tokenizer of bytes, in one file; the model is
tiny, so that what a process holds is Python, torch and the data. Each start is a process of its own, and makes two steps. It
prints a line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOKENS, PROMPT, STEPS = 200, 60, 2
RECIPE: dict[str, Any] = {
    "model": {
        "from_scratch": {"hidden_size": 32, "num_attention_heads": 1, "num_hidden_layers": 1},
        "tokenizer": "bytes",
    },
    "algorithm": {"name": "sft"},
    "data": {"train": {"path": "rows.jsonl"}, "chat_template": False},
    "training": {"max_steps": STEPS, "rows_per_step": 32, "save_every": 0},
}


def make(path: Path, rows: int) -> None:
    """The file: a prompt of PROMPT characters and a completion with the rest, one of which is its end."""
    with path.open("w") as file:
        for number in range(rows):
            prompt = f"{number} + {number * 7} = ".rjust(PROMPT, ".")
            completion = f"{number * 8} " * TOKENS
            file.write(json.dumps({"prompt": prompt, "completion": completion[: TOKENS - PROMPT - 1]}) + "\n")


def start(folder: str, began: float) -> None:
    """One start, in this process: prints what it took to the first step, and the most that it held."""
    from posttrain import load_recipe, run
    from posttrain.train.watch.records import Listener

    first: list[float] = []

    class Clock(Listener):
        def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
            first.append(time.time() - began)

    os.chdir(folder)
    run(load_recipe("recipe.yaml", [f"output_dir=out-{began}"]), listeners=[Clock()])
    spent = {"first step, s": round(first[0], 1), "processor in all, s": round(time.process_time())}
    print(json.dumps({**spent, **held()}))


def held() -> dict[str, float]:
    """Of this process the most that it held, and of that what is no file's, now, in GB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    kinds = {"most held, GB": "VmHWM", "of that at the end, without files": "RssAnon"}
    return {name: round(int(lines[kind].split()[0]) / 1e6, 2) for name, kind in kinds.items()}


def size(folder: Path) -> float:
    """GB of the files in a folder."""
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9, 2)


def main() -> None:
    """Makes the rows, starts twice, deletes all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--start", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.start:
        start(given.start[0], float(given.start[1]))
        return
    work = Path(tempfile.mkdtemp(prefix="large-data-", dir=given.folder))
    try:
        import yaml

        began = time.time()
        make(work / "rows.jsonl", given.rows)
        (work / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
        made = {"rows": given.rows, "tokens": TOKENS, "made in, s": round(time.time() - began)}
        print(json.dumps({**made, "file, GB": size(work)}), flush=True)
        kept = work / "kept"
        for name in ("first", "second"):
            command = [sys.executable, __file__, "--start", str(work), str(time.time())]
            environment = {**os.environ, "HF_DATASETS_CACHE": str(kept)}
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            print(json.dumps({"start": name, **json.loads(done.stdout.splitlines()[-1]), "disk, GB": size(kept)}), flush=True)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
