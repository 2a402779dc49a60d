"""The true reward raises held-out accuracy; a random one, and a learning rate of 0, do not.

The task: name the first of two letters, from four; the policy starts from scratch. Held out: three pairs.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from posttrain import Group, Judgement, PostTrainer, Request, Sampling, build_algorithm
from posttrain.data.rows import Problem
from posttrain.model.load import load
from posttrain.rollout.hf import HFEngine
from posttrain.settings.model import ModelConfig

LETTERS, HELD_OUT = "abcd", ("ab", "cd", "dc")
MODEL = {
    "from_scratch": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 1},
    "tokenizer": {"characters": LETTERS},
}


class FirstLetter:
    """1 for the question's first letter; `random`, the same share of ones without regard to the answer."""

    name = "first_letter"

    def __init__(self, *, random: bool) -> None:
        self._random = Random(0) if random else None

    def judge(self, group: Group) -> list[Judgement]:
        wanted = group.columns["prompt"][0]
        return [
            Judgement(float(self._random.random() < 0.25 if self._random else text == wanted)) for text in group.completions
        ]

    def close(self) -> None:
        pass


def accuracy(model: Any, tokenizer: Any) -> float:
    """On the held-out questions, over the samples of each."""
    requests = [Request(tokenizer(pair).input_ids, n=64, question=i) for i, pair in enumerate(HELD_OUT)]
    answers = HFEngine(model, tokenizer).generate(requests, Sampling(max_tokens=1, seed=99))
    right = [tokenizer.decode(one.tokens) == pair[0] for pair, group in zip(HELD_OUT, answers, strict=True) for one in group]
    return sum(right) / len(right)


@pytest.mark.parametrize(("reward", "rate", "learns"), [("true", 3e-3, True), ("random", 3e-3, False), ("true", 0.0, False)])
@pytest.mark.parametrize("name", ["grpo", "rloo"])
def test_accuracy_rises_with_the_true_reward_only(name: str, reward: str, rate: float, learns: bool, tmp_path: Path) -> None:
    model, tokenizer = load(ModelConfig.model_validate(MODEL), seed=0)
    pairs = ["".join(pair) for pair in product(LETTERS, repeat=2) if "".join(pair) not in HELD_OUT]
    problems = [Problem(tokenizer(pair).input_ids, {"prompt": pair, "answer": pair[0]}, pair) for pair in pairs]
    before = accuracy(model, tokenizer)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), use_cpu=True, max_steps=60, per_device_train_batch_size=64, learning_rate=rate,
        lr_scheduler_type="constant", report_to=[], save_strategy="no",
    )  # fmt: skip
    trainer = PostTrainer(
        model, build_algorithm(name, rollouts=8, kl_coef=0.0), tokenizer=tokenizer, train_dataset=problems, args=arguments,
        rewards=[FirstLetter(random=reward == "random")], engine=HFEngine(model, tokenizer), sampling=Sampling(max_tokens=1),
    )  # fmt: skip
    trainer.train()
    after = accuracy(model, tokenizer)
    assert before < 0.35
    if learns:
        assert after > 0.9
    else:
        assert after < 0.5
    if not rate:
        start, _ = load(ModelConfig.model_validate(MODEL), seed=0)
        assert after == before
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
