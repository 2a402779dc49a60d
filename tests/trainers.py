"""The trainer over the tiny model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from posttrain import PostTrainer, Sampling, Weighted, build_algorithm
from posttrain.rollout.hf import HFEngine
from posttrain.train.options import Execution, Watching
from tiny import Thirds, make_examples, make_model, make_problems, make_teacher

EXECUTION = {field.name for field in dataclasses.fields(Execution)}
WATCHING = {field.name for field in dataclasses.fields(Watching)}


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., PostTrainer]:
    def make(
        name: str,
        *,
        options: dict[str, Any] | None = None,
        model: tuple[Any, Any] | None = None,
        rows_per_step: int = 6,
        micro_rows: int | None = None,
        micro_tokens: int | None = None,
        output: str = "run",
        evaluate: bool = False,
        trainer_options: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> PostTrainer:
        policy, tokenizer = model or make_model()
        algorithm = build_algorithm(name, **(options or {}))
        online: dict[str, Any] = {}
        needs = algorithm.needs
        kind: Any = {"sides": needs.sides, "crossed": needs.crossed, "worth": needs.weight}
        rows: Any = make_examples(policy, tokenizer, **kind, template=needs.teacher_template)
        if algorithm.needs.rollouts:
            rows = make_problems(tokenizer, template=needs.teacher_template)
            sampling = Sampling(max_tokens=8, temperature=1.3, seed=5)
            online = {
                "rewards": [Weighted(Thirds(), verdict=True)],
                "engine": HFEngine(policy, tokenizer),
                "sampling": sampling,
            }
            if algorithm.needs.demonstrations:
                online["demonstrations"] = make_examples(policy, tokenizer, template=needs.teacher_template)
        micro = micro_rows or rows_per_step
        settings = {
            "output_dir": str(tmp_path / output),
            "use_cpu": True,
            "max_steps": 4,
            "per_device_train_batch_size": micro,
            "gradient_accumulation_steps": rows_per_step // micro,
            "optim": "sgd",
            "learning_rate": 0.1,
            "lr_scheduler_type": "constant",
            "max_grad_norm": 0.0,
            "report_to": [],
            "save_strategy": "no",
            "logging_steps": 1000,
            **arguments,
        }
        taught = {"teachers": {"wide": make_teacher()}} if algorithm.needs.given_teacher else {}
        given = {**online, **taught, **(trainer_options or {})}
        execution = {name: given.pop(name) for name in EXECUTION if name in given}
        watching = {name: given.pop(name) for name in WATCHING if name in given}
        return PostTrainer(
            policy,
            algorithm,
            tokenizer=tokenizer,
            train_dataset=given.pop("train_dataset", rows),
            eval_dataset={"held_out": rows[:5]} if evaluate else None,
            args=TrainingArguments(**settings),
            execution=Execution(micro_batch_tokens=micro_tokens, **execution),
            watching=Watching(**watching),
            **given,
        )

    return make
