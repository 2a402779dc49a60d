"""GRPO with rollouts one collection ahead, over a server that runs, in each of the ways in which a model can be held.

Called by test_ahead.py, and started by it with torchrun. Writes the parameters of each run, and beside them what it recorded.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import TrainingArguments

from posttrain import PostTrainer, Sampling, VLLMConfig, VLLMEngine, build_algorithm
from posttrain.algorithms import KIND
from posttrain.data.rows import Problem
from posttrain.distributed import ranks
from posttrain.distributed.deepspeed import deepspeed_config
from posttrain.distributed.launch import leave
from posttrain.model.load import load
from posttrain.model.weights import described_weights, engine_weights
from posttrain.rewards.kinds.repetition import RepetitionReward
from posttrain.rewards.make import make_rewards
from posttrain.rewards.options import Judged
from posttrain.settings.data import PathSource
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import ModelConfig
from posttrain.train.collect.ahead.sampler import Ahead
from posttrain.train.options import Execution
from system.train_everywhere import whole_parameters

MODEL = {"from_scratch": {"hidden_size": 64, "num_attention_heads": 2}, "tokenizer": {"characters": "abcdefgh"}}
OPTIONS = {"rollouts": 4, "correction": {"level": "token", "cap": 1.5}}
SAMPLING = Sampling(max_tokens=4, seed=3)
JUDGED, REWARDS = Judged(PathSource(path="none.jsonl"), SAMPLING.max_tokens), [RepetitionReward(n=1)]
STEPS, ROWS = 3, 16
WAYS = {"whole": "ddp", "adapter": "ddp", "fsdp2": "fsdp2", "zero3": "zero3"}  # DeepSpeed last: its settings stay


def train(way: str, folder: Path, vllm: VLLMConfig, ahead: Ahead) -> PostTrainer:
    adapter = {"adapter": {"r": 4, "alpha": 64}} if way == "adapter" else {}
    model, tokenizer = load(ModelConfig.model_validate({**MODEL, **adapter, "dtype": "float32"}), seed=0)
    distributed = DistributedConfig.model_validate({"mode": WAYS[way]})
    engine = VLLMEngine(model, tokenizer, vllm)
    trained = PostTrainer(
        model,
        build_algorithm("grpo", **OPTIONS),
        tokenizer=tokenizer,
        train_dataset=[Problem([2 + i % 8, 2 + i // 8], {"prompt": f"q{i}"}, f"question {i}") for i in range(16)],
        rewards=make_rewards(REWARDS, JUDGED),
        engine=engine,
        sampling=SAMPLING,
        ahead=ahead,
        args=TrainingArguments(
            str(folder / way),
            use_cpu=True,
            max_steps=STEPS,
            per_device_train_batch_size=ROWS // ranks.world(),
            learning_rate=0.5,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            optim="sgd",
            save_strategy="no",
            report_to=[],
            deepspeed=deepspeed_config(distributed, bf16=False) if ranks.world() > 1 else None,
        ),
        execution=Execution(distributed=distributed),
    )
    trained.train()
    engine.close()
    return trained


def train_all(folder: Path, url: str, ways: Sequence[str]) -> None:
    vllm = VLLMConfig(mode="server", url=url, weights_folder=str(folder / "weights"), max_num_seqs=65, deadline=60)
    kind: Any = KIND.find("grpo")
    ahead = Ahead(1, kind.model_validate({"name": "grpo", **OPTIONS}), REWARDS, JUDGED, vllm, leads=ranks.is_main())
    for way in ways:
        model = train(way, folder, vllm, ahead).model
        sent = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in engine_weights(model)]
        assert described_weights(model) == sent, way
        trained = whole_parameters(model)
        if ranks.is_main():
            np.save(folder / f"{way}.npy", trained.numpy())
    ahead.close()


def main() -> None:
    ranks.join(120, cpu=True)
    train_all(Path(sys.argv[1]), sys.argv[2], list(WAYS))
    dist.destroy_process_group()
    leave(SystemExit())


if __name__ == "__main__":
    main()
