"""`make memory-check`: what a process really holds of a model, its gradients and AdamW's state, in every mode.

Two processes on a CPU; writes the table of docs/scaling.md, with the formula beside it.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback

from posttrain import PostTrainer, load_recipe
from posttrain.distributed import deepspeed, ranks
from posttrain.execution.memory.process import held
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.preparation import prepare
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.options import Execution

PROCESSES, STEPS, LAYERS, BUCKET = 2, 4, (6, 12), 5_000_000
CASES = [
    *((mode, "float32") for mode in ("ddp", "zero1", "zero2", "zero3", "fsdp2")),
    *((mode, "bfloat16") for mode in ("zero1", "zero2", "zero3")),
]
PAGE, HEADING, NEXT = Path("docs/scaling.md"), "## Memory, measured", "\n## "
RECIPE: dict[str, Any] = {
    "model": {
        "from_scratch": {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12},
        "tokenizer": {"characters": "0123456789+-*="},
    },
    "data": {"train": {"task": "running_totals", "split": "train", "rows": 64}},
    "algorithm": {"name": "sft"},
    "training": {"max_steps": STEPS, "rows_per_step": 4, "learning_rate": 1e-3, "save_every": 0},
    "eval": {"samples": 0},
}
EXPLAINED = (
    "`make memory-check`: models of {small:.0f} and {large:.0f} million parameters, SFT with AdamW, two processes on "
    "a CPU. The difference of the resident memory of the two, for each parameter, in bytes, of the process that holds more: "
    "libraries do not count so. Weights and optimizer are what is held after a step, the peak is the most within the steps "
    "from the second on. DeepSpeed's buckets are of {bucket:.0f} million numbers here, small beside the model as its own "
    "are beside a real one."
)


class Watch(TrainerCallback):
    """The memory of this process from the second step on, when AdamW's state is there."""

    peak = between = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of transformers."""
        if state.global_step == 1:
            Path("/proc/self/clear_refs").write_text("5")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Of transformers, after the gradients are gone."""
        gc.collect()
        self.peak, self.between = memory("VmHWM"), memory("VmRSS")


def memory(kind: str) -> int:
    """Bytes of this process's memory: VmRSS now, VmHWM at most since it was last reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(kind)))


def train(path: Path) -> None:
    """One of the processes."""
    recipe = load_recipe(path)
    setattr(deepspeed, "BUCKET", BUCKET)  # noqa: B010
    ranks.join(600, cpu=True)
    prepared = prepare(recipe, Permissions())
    parameters, watch = sum(p.numel() for p in prepared.model.parameters()), Watch()
    PostTrainer(
        prepared.model,
        prepared.algorithm,
        tokenizer=prepared.tokenizer,
        train_dataset=prepared.sets.train,
        args=training_arguments(recipe, STEPS, checkpointing=False),
        execution=Execution(distributed=recipe.distributed),
        callbacks=[watch],
    ).train()
    found = {"between": watch.between, "peak": watch.peak, "parameters": parameters}
    both = ranks.all_gather(found, "the figures")
    if ranks.is_main():
        path.with_suffix(".json").write_text(json.dumps({name: max(one[name] for one in both) for name in found}))


def measured(mode: str, dtype: str, layers: int, folder: Path) -> dict[str, float]:
    """Bytes of the process that has most, and how many parameters the model has."""
    values = {**RECIPE, "output_dir": str(folder / "run"), "distributed": {"mode": mode, "processes": PROCESSES}}
    scratch = {**RECIPE["model"]["from_scratch"], "num_hidden_layers": layers}
    values["model"] = {**RECIPE["model"], "from_scratch": scratch, "dtype": dtype, "compute": dtype}
    path = folder / f"{mode}_{dtype}_{layers}.yaml"
    path.write_text(yaml.safe_dump(values))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    own = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is gone
    subprocess.run([*launcher, __file__, str(path)], check=True, env={**os.environ, **own})
    return json.loads(path.with_suffix(".json").read_text())


def main() -> None:
    """Measures all, and writes the table."""
    rows = [
        "| mode | numbers | weights and optimizer, formula | measured | and gradients, formula | peak, measured |",
        "|---|---|---|---|---|---|",
    ]
    sizes = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as name:
        for mode, dtype in CASES:
            small, large = (measured(mode, dtype, layers, Path(name)) for layers in LAYERS)
            sizes = [small["parameters"] / 1e6, large["parameters"] / 1e6]
            more = large["parameters"] - small["parameters"]
            found = {key: (large[key] - small[key]) / more for key in ("between", "peak")}
            config, number = DistributedConfig.model_validate({"mode": mode}), 2 if dtype == "bfloat16" else 4
            formula = held(config, PROCESSES, trained=1, number=number)
            kept = formula.weights + formula.optimizer
            figures = [f"{kept:g}", f"{found['between']:.1f}", f"{kept + formula.gradients:g}", f"{found['peak']:.1f}"]
            rows.append(f"| {mode} | {dtype} | {' | '.join(figures)} |")
            print(rows[-1], flush=True)
    before, _, after = PAGE.read_text().partition(HEADING)
    after = NEXT + after.partition(NEXT)[2] if NEXT in after else "\n"
    table = "\n\n".join([HEADING, EXPLAINED.format(small=sizes[0], large=sizes[1], bucket=BUCKET / 1e6), "\n".join(rows)])
    PAGE.write_text(before + table + "\n" + after)


if __name__ == "__main__":
    train(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
