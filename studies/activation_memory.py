"""`make activations-check`: what a micro-batch really holds at its peak, beside the formula of `execution/memory`.

One process on a CPU; every tensor that torch allocates and frees in a step is counted. Writes the table of docs/scaling.md.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from posttrain import PostTrainer
from posttrain.execution.prepare.arguments import training_arguments
from posttrain.execution.prepare.preparation import prepare
from posttrain.recipe.recipe import Recipe
from posttrain.settings.doors.permissions import Permissions
from posttrain.train.options import Execution

PAGE, HEADING, NEXT = Path("docs/scaling.md"), "### Activations, measured", "\n## "
CHARACTERS = {"characters": "".join(map(chr, range(0x4E00, 0x4E00 + 20_000)))}  # a vocabulary of 20,016
QWEN = {
    "architecture": "qwen2",
    "hidden_size": 256,
    "intermediate_size": 1408,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
}
QWEN = {**QWEN, "num_key_value_heads": 2}
WIDE = {**QWEN, "architecture": "llama"}  # whose tokenizer may have other letters than ASCII when it is read again
LLAMA = {
    "architecture": "llama",
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
}
DEEP = {**LLAMA, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 12, "num_attention_heads": 4}
LORA = {"r": 8}
CASES: dict[str, dict[str, Any]] = {
    "Qwen2, 256 × 6 layers": {"sizes": QWEN},
    "the same, rows padded": {"sizes": QWEN, "layout": "padded"},
    "the same, DPO, prompts shared": {"sizes": QWEN, "algorithm": "dpo", "read": 896},
    "the same, an adapter": {"sizes": QWEN, "adapter": LORA},
    "the same, an adapter, its base in bfloat16": {"sizes": QWEN, "adapter": LORA, "dtype": "bfloat16"},
    "Llama of these sizes, a vocabulary of 20,016": {"sizes": WIDE, "tokenizer": CHARACTERS},
    "the same, ASFT": {"sizes": WIDE, "tokenizer": CHARACTERS, "algorithm": "asft"},
    "the same, computed in bfloat16": {"sizes": WIDE, "tokenizer": CHARACTERS, "bf16": True},
    "Llama, 512 × 4 layers": {"sizes": LLAMA},
    "Llama, 128 × 12 layers": {"sizes": DEEP},
    "the same, an adapter on `q_proj`, `v_proj`": {
        "sizes": DEEP,
        "adapter": {"r": 8, "target_modules": ["q_proj", "v_proj"]},
    },
}
EXPLAINED = (
    "`make activations-check`: the most that torch holds within the second of two micro-batches of 8 rows of 128 tokens, "
    "less the gradients; one process on a CPU, float32 where nothing else is said. MB."
)


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes of the largest micro-batch by the formula, and measured."""

    formula: float
    measured: float


class Watched(PostTrainer):
    """Counts what a step holds at its peak."""

    peak = 0

    def training_step(self, *arguments: Any, **options: Any) -> Tensor:
        """Of transformers."""
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            loss = super().training_step(*arguments, **options)
        held, recorded = 0, watched.profiler
        assert recorded is not None and recorded.kineto_results is not None
        events: list[Any] = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
        for event in sorted(events, key=lambda event: event.start_ns()):
            held += event.nbytes()
            self.peak = max(self.peak, held)
        return loss


def compared(
    sizes: dict[str, Any],
    folder: Path,
    *,
    checkpointing: bool,
    algorithm: str = "sft",
    rows: int = 8,
    length: int = 128,
    dtype: str = "float32",
    tokenizer: Any = "bytes",
    adapter: dict[str, Any] | None = None,
    layout: str = "shared",
    head: str = "one_pass",
    read: int | None = None,
    bf16: bool = False,
) -> Found:
    """Of a model of these sizes, trained for a step of two micro-batches of so many rows of so many tokens."""
    letters = CHARACTERS["characters"] if tokenizer == CHARACTERS else "abcdefghijklmnop"
    units, asked = rows // (2 if algorithm == "dpo" else 1), length // 4
    answer = letters[0] * (length - asked - 1)
    told = {"chosen": answer, "rejected": answer[1:] + letters[1]} if algorithm == "dpo" else {"completion": answer}
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps({'prompt': letters[i] * asked, **told})}\n" for i in range(2 * units)))
    model = {"from_scratch": sizes, "tokenizer": tokenizer, "dtype": dtype, "adapter": adapter}
    training = {"max_steps": 1, "rows_per_step": 2 * units, "micro_batch_rows": units, "save_every": 0}
    values = {
        "model": model,
        "algorithm": {"name": algorithm},
        "data": {"train": {"path": str(path)}, "chat_template": False},
        "training": {
            **training,
            "layout": layout,
            "head": head,
            "micro_batch_tokens": read or rows * length,
            "bf16": bf16,
            "extra": {"use_cpu": True},
        },
        "output_dir": str(folder / "run"),
    }
    recipe = Recipe.model_validate(values)
    prepared = prepare(recipe, Permissions())
    footprint = prepared.footprint()
    assert footprint.passing is not None
    trainer = Watched(
        prepared.model,
        prepared.algorithm,
        tokenizer=prepared.tokenizer,
        train_dataset=prepared.sets.train,
        args=training_arguments(recipe, 1, checkpointing=checkpointing),
        execution=Execution(**recipe.training.model_dump(include={"micro_batch_tokens", "head", "layout"})),
    )
    trainer.train()
    gradients = sum(p.numel() * p.element_size() for p in prepared.model.parameters() if p.requires_grad)
    formula = footprint.passing.checkpointed if checkpointing else footprint.passing.plain
    return Found(formula, trainer.peak - gradients)


def main() -> None:
    """Measures all, and writes the table."""
    torch.set_num_threads(1)
    table = ["| model | formula | measured | with checkpointing, formula | measured |", "|---|---|---|---|---|"]
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            found = [compared(folder=Path(folder), checkpointing=on, **case) for on in (False, True)]
        figures = (f"{size / 1e6:.1f}" for one in found for size in (one.formula, one.measured))
        table.append(f"| {name} | {' | '.join(figures)} |")
        print(table[-1], *(f"{one.formula / one.measured:.2f}" for one in found), flush=True)
    before, _, after = PAGE.read_text().partition(HEADING)
    after = NEXT + after.partition(NEXT)[2] if NEXT in after else "\n"
    PAGE.write_text(before + "\n\n".join([HEADING, EXPLAINED, "\n".join(table)]) + "\n" + after)


if __name__ == "__main__":
    main()
