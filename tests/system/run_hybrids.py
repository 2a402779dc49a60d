"""Runs a recipe of every algorithm over rollouts and demonstrations with vLLM, in one process; prints its last step each."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import yaml

from posttrain import load_recipe, run

SIZE = {"hidden_size": 64, "num_attention_heads": 2}
OPTIONS: dict[str, dict[str, Any]] = {
    "hpt": {"gate": 4},
    "prefix_rft": {},
    "uft": {"low": 0.5, "hint_until": 1},
    "bread": {},
    "luffy": {},
    "srft": {},
    "chord": {"demonstrations": 3},
    "grpo_sft": {},
    "relift": {"buffer_size": 1},
}


def main() -> None:
    task = {"task": "running_totals", "rows": 12}
    last: dict[str, Any] = {}
    for name, options in OPTIONS.items():
        values = {
            "model": {"from_scratch": SIZE, "tokenizer": {"characters": "0123456789+-*="}},
            "algorithm": {"name": name, **options},
            "data": {"train": task, **({"demonstrations": task} if "demonstrations" in options else {})},
            "rollout": {"engine": "vllm", "questions_per_step": 4, "n": 4, "max_tokens": 6},
            "training": {"max_steps": 4, "rows_per_step": 8, "learning_rate": 1e-3, "save_every": 0},
            "output_dir": str(Path(sys.argv[1]) / name),
        }
        path = Path(sys.argv[1]) / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        folder = run(load_recipe(path)).output_dir
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        last[name] = [json.loads(line) for line in lines]
        gc.collect()
        gc.freeze()  # vLLM has all looked at again when it ends, and each run collects garbage several times
    print(json.dumps(last))


if __name__ == "__main__":
    main()
