"""Trains recipes for fifty steps at a learning rate of 1e-6 on however many ranks it was started with, and saves how each
parameter changed, as it was held when training ended, before anything was rounded to be saved.

Started by test_masters.py with torchrun.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from posttrain.distributed import ranks
from posttrain.distributed.launch import leave
from posttrain.distributed.sharding import whole_copy
from posttrain.execution import runner
from posttrain.execution.prepare import preparation
from posttrain.model.load import load
from posttrain.model.saving import save_model
from posttrain.recipe.recipe import Recipe
from posttrain.train.given import handed

STEPS, RATE = 50, 1e-6
CASES: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "bfloat16", "compute": "float32"},
    "bfloat16": {"dtype": "bfloat16", "compute": "bfloat16"},
    "adapter": {"dtype": "bfloat16", "compute": "bfloat16", "adapter": {"r": 2}},
    "before": {"dtype": "bfloat16", "compute": "bfloat16"},
}
"""What is trained; `before` as it was without masters."""


def recipe(start: Path, folder: Path, mode: str = "ddp", steps: int = STEPS, **model: Any) -> Recipe:
    training = {"max_steps": steps, "rows_per_step": 8, "learning_rate": RATE, "save_every": 0}
    return Recipe.model_validate(
        {
            "model": {"name": str(start), **model},
            "algorithm": {"name": "sft"},
            "data": {"train": {"task": "chain", "rows": 200}},
            "training": {**training, "lr_scheduler_type": "constant"},
            "distributed": {"mode": mode, "processes": ranks.world()},
            "output_dir": str(folder),
        }
    )


def trained(start: Path, folder: Path, mode: str = "ddp", **model: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Runs a recipe. Each trained parameter, as the optimizer has it, less what the start's files have under its name; and
    the dtypes of the files that were saved.
    """
    found: dict[str, Tensor] = {}
    begun = load_file(start / "model.safetensors")

    def looked_at(of: Any, *arguments: Any, **options: Any) -> None:
        for name, parameter in sorted(of.named_parameters()):
            if parameter.requires_grad:
                found[name] = _as_trained(parameter).double() - begun.get(name, torch.zeros(())).double()
        save_model(of, *arguments, **options)

    setattr(runner, "save_model", looked_at)  # noqa: B010
    try:
        runner.run(recipe(start, folder, mode, **model))
    finally:
        setattr(runner, "save_model", save_model)  # noqa: B010
    files = {str(path.relative_to(folder)): load_file(path) for path in sorted((folder / "final").rglob("*.safetensors"))}
    return found, {name: ", ".join({str(value.dtype) for value in file.values()}) for name, file in files.items()}


def _as_trained(parameter: Any) -> Tensor:
    """Of DeepSpeed its own float32 copy."""
    if hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_fp32_param  # pyright: ignore[reportMissingImports]  # an extra

        own: Any = safe_get_full_fp32_param(parameter)
        return own.detach().cpu()
    return whole_copy(parameter).detach().cpu().clone()


def compared_at_the_start(start: Path, folder: Path, mode: str) -> float:
    """The first loss of DPO of a float32 model that is computed in bfloat16: ln 2 where policy and reference are one."""
    rows = [{"prompt": f"{i}+{i}=", "chosen": str(2 * i), "rejected": "0"} for i in range(1, 9)]
    path = folder.with_suffix(f".{ranks.rank()}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = recipe(start, folder, mode, steps=1, dtype="float32", compute="bfloat16").model_dump(exclude_unset=True)
    values |= {"algorithm": {"name": "dpo"}, "data": {"train": {"path": str(path)}}}
    runner.run(Recipe.model_validate(values))
    ranks.barrier("its metrics")
    return json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["objective/dpo"]


def flat(changes: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([changes[name].flatten() for name in sorted(changes)]).numpy()


def main() -> None:
    start, target, mode = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    gc.freeze()
    moved: dict[str, Any] = {}
    facts: dict[str, Any] = {"first loss of DPO": compared_at_the_start(start, target.parent / f"{mode} dpo", mode)}
    for name, model in CASES.items():
        gc.freeze()  # each run collects garbage at its start, and DeepSpeed more often
        if name == "before":
            setattr(preparation, "load", lambda *args, masters, **more: load(*args, **more))  # noqa: B010
            setattr(handed, "with_masters", lambda model: False)  # noqa: B010
        changes, facts[name] = trained(start, target.parent / f"{mode} {name}", mode, **model)
        moved[name] = flat(changes)
    if ranks.rank() == 0:
        np.savez(target, **moved)
        target.with_suffix(".json").write_text(json.dumps(facts))
    torch.distributed.destroy_process_group()
    leave(SystemExit())


if __name__ == "__main__":
    main()
