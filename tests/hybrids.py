"""Each algorithm over rollouts and demonstrations on the quickstart's task, from one start model, by recipe.

`python hybrids.py ENGINE FOLDER` trains all and prints what each was before and after, as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from posttrain import load_recipe, run

QUICKSTART = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
SHOWN = {"task": "chain", "split": "train", "rows": 500, "seed": 5}
HYBRIDS: dict[str, dict[str, Any]] = {
    "hpt": {"gate": 2},
    "prefix_rft": {},
    "luffy": {},
    "srft": {},
    "grpo_sft": {},
    "chord": {"demonstrations": 64},
}
STEPS = 30


def start(folder: Path) -> Path:
    """A model that is right on some questions, by SFT: the quickstart's first stage, cut short."""
    values, sft, _ = _quickstart()
    training = {**values["training"], **sft["training"], "max_steps": 1000, "save_every": 0}
    return _run({**values, "algorithm": {"name": "sft"}, "training": training}, folder / "start") / "final"


def improve(name: str, begun: Path, engine: str, folder: Path) -> tuple[float, float]:
    """Held-out pass@1 before and after a few steps of a hybrid."""
    values, _, grpo = _quickstart()
    data = {**values["data"], "train": {"task": "chain", "split": "train", "rows": 2000}}
    if "demonstrations" in HYBRIDS[name]:
        data["demonstrations"] = SHOWN
    changes = {
        "model": {"name": str(begun)},
        "algorithm": {"name": name, **HYBRIDS[name]},
        "data": data,
        "rollout": {**grpo["rollout"], "n": 8, "engine": engine},
        "training": {**values["training"], **grpo["training"], "learning_rate": 5e-4, "max_steps": STEPS, "save_every": 0},
    }
    lines = (_run({**values, **changes}, folder / f"{engine}-{name}") / "eval.jsonl").read_text().splitlines()
    first, last = json.loads(lines[0]), json.loads(lines[-1])
    return first["eval/held_out/pass@1"], last["eval/held_out/pass@1"]


def _quickstart() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    values = yaml.safe_load(QUICKSTART.read_text())
    sft, grpo = values.pop("stages")
    values["data"]["eval"].pop("ood")
    return values, sft, grpo


def _run(values: dict[str, Any], folder: Path) -> Path:
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**values, "output_dir": str(folder)}))
    return run(load_recipe(path)).output_dir


if __name__ == "__main__":
    engine, folder = sys.argv[1], Path(sys.argv[2])
    begun = start(folder)
    print(json.dumps({name: improve(name, begun, engine, folder) for name in HYBRIDS}))
