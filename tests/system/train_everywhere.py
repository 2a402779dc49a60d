"""Trains every algorithm for a few SGD steps on however many ranks it was started with, and saves the parameters.

Started by test_two_ranks.py with python, and with torchrun. Algorithms over rollouts get a scripted collection: what their
collector would give, as a function of (row, step) alone.
"""

from __future__ import annotations

import dataclasses
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
from posttrain.algorithms import build_algorithm, example_values
from posttrain.collection import Collection
from posttrain.data.collate import DemonstrationCollector
from posttrain.data.rows import Example
from posttrain.estimator import Algorithm
from posttrain.types import Origin
from tiny import make_examples, make_model, parameters

STEPS, ROWS = 4, 8


class Scripted:
    """A collector of demonstrations, with groups of four rows and the rewards that algorithms over rollouts need.

    The last row of a group is its demonstration, or begins with one, where the algorithm asks for it.
    """

    def __init__(self, examples: list[Example], algorithm: Algorithm, **_: Any) -> None:
        self._updates, self._rollouts = algorithm.needs.updates, bool(algorithm.needs.rollouts)
        self._shown = {"none": 0, "prefix": 2}.get(algorithm.needs.demonstration, 1000)
        self._plain = DemonstrationCollector(examples, rows=ROWS, updates=self._updates, seed=0)

    def collect(self, model: Any, step: int, progress: float) -> Collection:
        collection = self._plain.collect(model, step, progress)
        if not self._rollouts:
            return collection
        rng = torch.Generator().manual_seed(step)
        shape = collection.batch.loss_mask.shape
        shown = (torch.arange(shape[0])[:, None] % 4 == 3) & (torch.arange(shape[1]) < self._shown)
        batch = collection.batch.replace(
            correct=torch.rand(shape[0], generator=rng) < 0.3,
            reward=torch.rand(shape[0], generator=rng, dtype=torch.float64),
            group=torch.arange(shape[0]) // 4,
            behavior_logp=-3 * torch.rand(shape, generator=rng, dtype=torch.float64),
            origin=torch.where(shown, Origin.DEMO, Origin.ROLLOUT),
        )
        return dataclasses.replace(collection, batch=batch)


class Counting(PostTrainer):
    """Notes how many micro-batches each step has."""

    micro_batches: list[int]

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        self.micro_batches.append(len(inputs.micro))
        return super().training_step(model, inputs, num_items_in_batch)


def train(algorithm: Any, folder: Path) -> tuple[torch.Tensor, Counting]:
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
    Counting.micro_batches = []
    rows = make_examples(model, tokenizer, preference=algorithm.needs.preference)
    trained = Counting(model, algorithm, tokenizer=tokenizer, train_dataset=rows, args=arguments, micro_batch_tokens=150)
    before = parameters(trained.model)
    trained.train()
    return parameters(trained.model) - before, trained


def main() -> None:
    target = Path(sys.argv[1])
    setattr(trainer, "rollouts_of", lambda data, algorithm, *_, **__: (data, Scripted(data, algorithm)))  # noqa: B010
    moved: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    values = {algorithm.name: algorithm for algorithm in example_values()}
    values["grpo of two updates"] = build_algorithm("grpo", updates=2, kl_in="reward")
    values["prefix_rft of two updates"] = build_algorithm("prefix_rft", updates=2, max_tokens=64)
    for name, algorithm in values.items():
        change, trained = train(algorithm, target.parent / target.stem)
        moved[name] = change.numpy()
        facts[name] = trained.micro_batches
        facts["world"], facts["kind"] = trained.args.world_size, trained.accelerator.distributed_type.name
    if not dist.is_initialized() or dist.get_rank() == 0:
        np.savez(target, **moved)
        target.with_suffix(".json").write_text(json.dumps(facts))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
