"""A small study, and folders of runs that look finished."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from posttrain.execution.study.config import StudyConfig
from recipes import SCRATCH

SETS = {
    name: {"task": "running_totals", "split": split, "rows": 8}
    for name, split in (("val", "validation"), ("test", "held_out"))
}
STUDY: dict[str, Any] = {
    "recipe": {
        "model": SCRATCH,
        "data": {"train": {"task": "running_totals", "rows": 16}, "eval": SETS},
        "training": {"max_steps": 9, "rows_per_step": 4, "lr_scheduler_type": "constant", "save_every": 0},
        "eval": {"samples": 2, "k": [2], "max_tokens": 4},
    },
    "starts": {"young": {"algorithm": {"name": "sft"}}, "given": {"model": {"name": "some/model"}}},
    "algorithms": {
        "sft": {"algorithm": {"name": "sft"}},
        "both": {
            "rollout": {"questions_per_step": 2, "n": 2, "max_tokens": 4},
            "stages": [
                {"share": 0.25, "algorithm": {"name": "sft"}, "rollout": None},
                {"share": 0.75, "rate": 0.5, "algorithm": {"name": "hpt"}, "training": {"warmup_steps": 1}},
            ],
        },
    },
    "budget": {"tokens": 400},
    "tuning": {"learning_rates": [1e-3, 1e-2], "seeds": [7], "metrics": ["val/pass@1"]},
    "seeds": [0, 1],
    "drift": "test",
    "output_dir": "study",
}


def study(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({**deepcopy(STUDY), **changes})


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def step(number: int, **more: float) -> dict[str, Any]:
    given = {"step/tokens": 10, "train/tokens": 5, "step/seconds": 0.5, "train/demonstrated": 0.5}
    return {"step": number, **given, **more}


def finished(folder: Path, after: float, before: float = 0.1) -> None:
    def scores(value: float) -> dict[str, float]:
        return {f"eval/{name}/{what}": value for name in SETS for what in ("pass@1", "pass@2", "length")}

    lines(folder / "metrics.jsonl", step(1), step(2, **{"rollout/tokens": 7}))
    lines(folder / "eval.jsonl", {"step": 0, **scores(before)}, {"step": 2, **scores(after)})
