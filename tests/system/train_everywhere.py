"""Trains every algorithm for a few SGD steps on however many ranks it was started with, and saves the parameters.

Started by test_two_ranks.py with python, and with torchrun. Algorithms over rollouts get a scripted collection: what their
collector would give, as a function of (row, step) alone.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import TrainingArguments

from posttrain import PostTrainer, trainer
from posttrain.algorithms import example_values
from posttrain.data.collate import Collection
from posttrain.types import Origin
from tiny import make_examples, make_model, parameters

STEPS, ROWS = 4, 8


class Scripted(PostTrainer):
    """With groups of four rows, and rewards and old log-probs for algorithms that need them."""

    micro_batches: list[int]

    def get_batch_samples(self, *arguments: Any) -> tuple[list[Any], None]:
        [collection], _ = super().get_batch_samples(*arguments)
        if self._algorithm.needs.rollouts or self._algorithm.needs.old_logp:
            rng = torch.Generator().manual_seed(self.state.global_step)
            shape = collection.batch.loss_mask.shape
            batch = collection.batch.replace(
                reward=torch.rand(shape[0], generator=rng, dtype=torch.float64),
                group=torch.arange(shape[0]) // 4,
                old_logp=-3 * torch.rand(shape, generator=rng, dtype=torch.float64),
                ref_logp=-3 * torch.rand(shape, generator=rng, dtype=torch.float64),
                origin=torch.full(shape, int(Origin.ROLLOUT)),
            )
            collection = Collection(collection.rows, collection.units, batch)
        self.micro_batches.append(len(self._plan(collection)[0]))
        return [collection], None


def train(algorithm: Any, folder: Path) -> tuple[torch.Tensor, Scripted]:
    model, tokenizer = make_model()
    world = int(os.environ.get("WORLD_SIZE", "1"))
    rate = 1e-3 if algorithm.needs.preference else 0.05
    arguments = TrainingArguments(
        output_dir=str(folder / algorithm.name),
        use_cpu=True,
        max_steps=STEPS,
        per_device_train_batch_size=ROWS // world,
        optim="sgd",
        learning_rate=rate,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        report_to=[],
        save_strategy="no",
    )
    Scripted.micro_batches = []
    rows = make_examples(model, tokenizer, preference=algorithm.needs.preference)
    trained = Scripted(model, algorithm, tokenizer=tokenizer, train_dataset=rows, args=arguments, micro_batch_tokens=150)
    before = parameters(trained.model)
    trained.train()
    return parameters(trained.model) - before, trained


def main() -> None:
    target = Path(sys.argv[1])
    trainer._check = lambda *_: None  # the refusal of collections; here they are scripted
    moved: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    for algorithm in example_values():
        change, trained = train(algorithm, target.parent / target.stem)
        moved[algorithm.name] = change.numpy()
        facts[algorithm.name] = trained.micro_batches
        facts["world"], facts["kind"] = trained.args.world_size, trained.accelerator.distributed_type.name
    if not dist.is_initialized() or dist.get_rank() == 0:
        np.savez(target, **moved)
        target.with_suffix(".json").write_text(json.dumps(facts))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
