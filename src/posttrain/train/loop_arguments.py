"""TrainingArguments as the trainer's parent gets them."""

from __future__ import annotations

import copy
import math

from transformers import TrainingArguments

from posttrain.errors import SetupError


def check_devices(args: TrainingArguments) -> None:
    """Refuses several devices in one process, and float16.

    Raises:
        SetupError: says what to do.
    """
    if args.n_gpu > 1:
        raise SetupError(
            "Several devices in one process are not supported: choose one, by CUDA_VISIBLE_DEVICES=0, for instance, or start "
            "a process for each: posttrain run --processes N, or torchrun."
        )
    if args.fp16:
        raise SetupError("float16 is not supported: use bf16, or float32.")


def for_the_parent(args: TrainingArguments, steps_per_epoch: float, *, fsdp2: bool) -> TrainingArguments:
    """A copy with which the parent sees one batch for each optimizer step, and hides nothing."""
    args = copy.copy(args)
    args.save_only_model = args.save_only_model or fsdp2  # of which the parent saves nothing; we do
    args.gradient_accumulation_steps, args.save_total_limit = 1, None
    args.remove_unused_columns, args.ignore_data_skip, args.logging_nan_inf_filter = False, True, False
    if args.max_steps <= 0:
        args.max_steps = math.ceil(args.num_train_epochs * steps_per_epoch)
    return args
