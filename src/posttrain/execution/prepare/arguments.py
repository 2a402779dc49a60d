"""A recipe's training in the words of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from posttrain.distributed import ranks
from posttrain.distributed.deepspeed import deepspeed_config
from posttrain.errors import RecipeError, SetupError
from posttrain.execution.numbers import computed_in
from posttrain.recipe.recipe import Recipe

if TYPE_CHECKING:
    from transformers import TrainingArguments

OPTIMIZER = "adamw_torch_fused"  # one kernel for all of a step, on GPU and CPU; no copies of the gradients are made
SAVES = 10  # checkpoints of a run where the recipe does not say
WITH_OPTIONS = ("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay")
"""Schedules of transformers that need lr_scheduler_kwargs."""


def check_arguments(recipe: Recipe, steps: int, *, checkpointing: bool) -> None:
    """Whether `training_arguments` can be made. transformers is asked where the recipe says something that it may refuse; its
    trainer's modules bring peft along, and more.

    Raises:
        RecipeError, SetupError: as `training_arguments`.
    """
    training = recipe.training
    if training.extra or training.lr_scheduler_type in WITH_OPTIONS or computed_in(recipe) == "bfloat16":
        training_arguments(recipe, steps, checkpointing=checkpointing)
    else:
        _micro_batches(recipe)


def training_arguments(recipe: Recipe, steps: int, *, checkpointing: bool) -> TrainingArguments:
    """The recipe in transformers' words, with or without gradient checkpointing.

    Raises:
        RecipeError: they contradict each other, or an extra one has a value that cannot be.
        SetupError: this machine cannot do what they ask for.
    """
    from transformers import TrainingArguments, get_scheduler

    training = recipe.training
    every = -(-steps // SAVES) if training.save_every is None else training.save_every
    micro, number = _micro_batches(recipe)
    bf16 = computed_in(recipe) == "bfloat16"
    on_cpu = {"use_cpu": True} if (ranks.world() > 1 or bf16) and not torch.cuda.is_available() else {}
    try:
        arguments = TrainingArguments(
            output_dir=recipe.output_dir,
            **({"max_steps": steps} if training.epochs is None else {"num_train_epochs": training.epochs}),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=number,
            learning_rate=training.learning_rate,
            lr_scheduler_type=training.lr_scheduler_type or "constant",  # where the schedule is our own, which is used then
            warmup_steps=training.warmup_steps if training.warmup_steps < 1 else round(training.warmup_steps),
            weight_decay=training.weight_decay,
            adam_beta1=training.adam_beta1,
            adam_beta2=training.adam_beta2,
            max_grad_norm=training.max_grad_norm,
            bf16=bf16,
            deepspeed=deepspeed_config(recipe.distributed, bf16=bf16) if ranks.world() > 1 else None,
            ddp_timeout=round(recipe.distributed.timeout + ranks.SLACK),
            gradient_checkpointing=checkpointing,
            save_strategy="steps" if every else "no",
            save_steps=every or steps,
            save_total_limit=training.save_total_limit,
            eval_strategy="no" if recipe.eval.every is None else "steps",
            eval_steps=recipe.eval.every,
            logging_steps=training.logging_steps,
            report_to=list(training.report_to),
            seed=recipe.seed,
            disable_tqdm=True,
            **{"optim": OPTIMIZER, **on_cpu, **training.extra},
        )
        get_scheduler(
            arguments.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)]),
            arguments.get_warmup_steps(steps),
            steps,
            arguments.lr_scheduler_kwargs,  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        hint = " (on a CPU: training.extra: {use_cpu: true})" if "use_cpu" in str(error) else ""
        kind = RecipeError if training.extra and not hint else SetupError
        raise kind(f"training: the arguments do not fit: {error}{hint}") from error
    return arguments


def _micro_batches(recipe: Recipe) -> tuple[int, int]:
    """Rows of a micro-batch, at most, and how many of these a process reads in a step."""
    training = recipe.training
    if training.tokens_per_step is not None:  # a row has a token, so that this bounds nothing where nothing is asked for
        return training.micro_batch_rows or training.tokens_per_step, 1
    share, left = divmod(training.rows, ranks.world())
    micro = min(training.micro_batch_rows or share, share)
    if left or not share or share % micro:
        raise RecipeError(
            f"training.rows_per_step: {training.rows} rows are no whole number of micro-batches of {max(micro, 1)} "
            f"on each of {ranks.world()} processes."
        )
    return micro, share // micro
