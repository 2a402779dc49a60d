"""What `training.extra` may hold: the names of transformers.TrainingArguments that the recipe does not set itself."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

OURS = {
    "output_dir": "output_dir",
    "seed": "seed",
    "data_seed": "seed",
    "max_steps": "training.max_steps",
    "num_train_epochs": "training.epochs",
    "learning_rate": "training.learning_rate",
    "lr_scheduler_type": "training.lr_scheduler_type",
    "warmup_steps": "training.warmup_steps",
    "weight_decay": "training.weight_decay",
    "adam_beta1": "training.adam_beta1",
    "adam_beta2": "training.adam_beta2",
    "max_grad_norm": "training.max_grad_norm",
    "bf16": "training.bf16",
    "fp16": "training.bf16; float16 is not supported",
    "gradient_checkpointing": "training.gradient_checkpointing",
    "save_strategy": "training.save_every",
    "save_steps": "training.save_every",
    "save_total_limit": "training.save_total_limit",
    "logging_strategy": "training.logging_steps",
    "logging_steps": "training.logging_steps",
    "report_to": "training.report_to",
    "per_device_train_batch_size": "training.rows_per_step and training.micro_batch_tokens",
    "gradient_accumulation_steps": "training.rows_per_step and training.micro_batch_tokens",
    "auto_find_batch_size": "training.micro_batch_tokens",
    "eval_strategy": "eval.every",
    "eval_steps": "eval.every",
    "eval_on_start": "eval.every",
    "eval_delay": "eval.every",
    "load_best_model_at_end": "eval.metric",
    "metric_for_best_model": "eval.metric",
    "greater_is_better": "eval.metric",
    "per_device_eval_batch_size": "training.micro_batch_tokens",
    "resume_from_checkpoint": "the same command resumes",
    "ignore_data_skip": "the order of the data is a function of seed and step",
    "remove_unused_columns": "data.train.columns",
    "label_smoothing_factor": "the loss is the algorithm's",
    "use_liger_kernel": "the output layer is posttrain's own",
    "neftune_noise_alpha": "not supported",
    "disable_tqdm": "the progress bar is posttrain's own",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "include_num_input_tokens_seen": "metrics.jsonl counts tokens",
    "accelerator_config": "the data order is posttrain's own",
    "train_sampling_strategy": "the data order is posttrain's own",
    "deepspeed": "distributed.mode",
    "fsdp": "distributed.mode",
    "fsdp_config": "distributed.mode",
    "ddp_timeout": "distributed.timeout",
    "do_train": "posttrain run trains",
    "do_eval": "eval.every",
    "do_predict": "posttrain eval",
}
"""Fields that the recipe or the trainer sets, and where."""


@cache
def training_argument_names() -> frozenset[str]:
    """The fields of the installed transformers' TrainingArguments, read from its source: importing it would take seconds."""
    found = find_spec("transformers")
    assert found is not None and found.origin is not None  # it is a requirement
    tree = ast.parse(Path(found.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    of_class = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    fields = [node for node in of_class.body if isinstance(node, ast.AnnAssign)]
    return frozenset(field.target.id for field in fields if isinstance(field.target, ast.Name))
