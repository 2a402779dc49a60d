"""transformers.TrainingArguments, name by name: what a recipe's `training.extra` may hold, and what `PostTrainer` takes.

Each field stands in one of four tables. One that a later transformers brings stands in none, and is refused until somebody
has looked at it.
"""

from __future__ import annotations

import ast
import difflib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PASSED = frozenset(
    (
        "adam_epsilon",
        "ddp_backend",
        "ddp_broadcast_buffers",
        "ddp_bucket_cap_mb",
        "ddp_find_unused_parameters",
        "full_determinism",
        "gradient_checkpointing_kwargs",
        "hub_private_repo",  # of trackio
        "hub_token",
        "log_level",
        "log_level_replica",
        "log_on_each_node",
        "logging_first_step",
        "lr_scheduler_kwargs",
        "optim",
        "optim_args",
        "optim_target_modules",
        "project",
        "run_name",
        "tf32",
        "trackio_bucket_id",
        "trackio_space_id",
        "trackio_static_space_id",
        "use_cpu",
    )
)
"""Do what transformers says of them."""

KEYS = {
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
    "gradient_checkpointing": "training.gradient_checkpointing",
    "save_strategy": "training.save_every",
    "save_steps": "training.save_every",
    "save_total_limit": "training.save_total_limit",
    "logging_strategy": "training.logging_steps",
    "logging_steps": "training.logging_steps",
    "report_to": "training.report_to",
    "per_device_train_batch_size": "training.rows_per_step (or tokens_per_step) and training.micro_batch_tokens",
    "gradient_accumulation_steps": "training.rows_per_step (or tokens_per_step) and training.micro_batch_tokens",
    "eval_strategy": "eval.every",
    "eval_steps": "eval.every",
    "eval_on_start": "eval.every",
    "eval_delay": "eval.every",
    "metric_for_best_model": "eval.metric",
    "greater_is_better": "eval.metric",
    "ignore_data_skip": "the order of the data is a function of seed and step",
    "remove_unused_columns": "data.train.columns",
    "disable_tqdm": "the progress bar is posttrain's own",
    "logging_nan_inf_filter": "a loss that is not finite stops the run",
    "restore_callback_states_from_checkpoint": "a recipe has no callbacks",
    "skip_memory_metrics": "metrics.jsonl has what a run measures",
    "deepspeed": "distributed.mode",
    "fsdp": "distributed.mode",
    "fsdp_config": "distributed.mode",
    "ddp_timeout": "distributed.timeout",
    "do_train": "posttrain run trains",
    "do_eval": "eval.every",
    "do_predict": "posttrain eval",
    "local_rank": "posttrain run --processes, or the launcher",
}
"""A recipe says them elsewhere, and where; in Python they do what transformers says of them, or say what is the case."""

_LOADER = "rows are in memory, and no data loader reads them"
_PREDICTIONS = "an evaluation has the algorithm's loss and metrics, and no predictions"
IDLE = {
    "per_device_eval_batch_size": "evaluations run in the micro-batches of training, and their numbers do not depend on it",
    "resume_from_checkpoint": "nobody reads it here: the same command resumes, in Python train(resume_from_checkpoint=…)",
    "dataloader_num_workers": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "dataloader_persistent_workers": _LOADER,
    "dataloader_prefetch_factor": _LOADER,
    "dataloader_multiprocessing_context": _LOADER,
    "dataloader_in_order": _LOADER,
    "length_column_name": "lengths are counted",
    "label_names": "what carries loss are the answers' tokens",
    "eval_do_concat_batches": _PREDICTIONS,
    "eval_use_gather_object": _PREDICTIONS,
    "eval_accumulation_steps": _PREDICTIONS,
    "hub_strategy": "nothing is pushed",
    "hub_always_push": "nothing is pushed",
}
"""Change nothing here, and why: refused in a recipe, told in Python."""

_ORDER = "the order of the data is posttrain's own, a function of seed and step"
_PUSH = "a run pushes nothing: upload final/ when it is done (hf upload REPOSITORY final/)"
REFUSED = {
    "fp16": "float16 is not supported: training.bf16 (bf16=True), or float32",
    "bf16_full_eval": "evaluations compute as training does: training.bf16 (bf16=True)",
    "fp16_full_eval": "float16 is not supported",
    "auto_find_batch_size": "micro-batches are halved by themselves where memory is full: training.micro_batch_tokens "
    "(Execution(micro_batch_tokens=…))",
    "average_tokens_across_devices": "the denominator is one count over all ranks, always",
    "label_smoothing_factor": "the loss is the algorithm's",
    "use_liger_kernel": "the output layer is posttrain's own, which makes no logits either",
    "liger_kernel_config": "the output layer is posttrain's own, which makes no logits either",
    "neftune_noise_alpha": "noise on the embeddings is not supported",
    "torch_compile": "the output layer is posttrain's own, and cannot be compiled with the model",
    "torch_compile_backend": "the output layer is posttrain's own, and cannot be compiled with the model",
    "torch_compile_mode": "the output layer is posttrain's own, and cannot be compiled with the model",
    "torch_empty_cache_steps": "the cache is emptied where memory was full",
    "use_cache": "a forward pass of training keeps no cache",
    "include_num_input_tokens_seen": "metrics.jsonl counts tokens",
    "accelerator_config": _ORDER,
    "train_sampling_strategy": _ORDER,
    "dataloader_drop_last": "no row is dropped: an epoch's last step is smaller, and divided by its own count",
    "parallelism_config": "tensor, context and sequence parallelism are not supported: distributed.mode "
    "(Execution(distributed=…))",
    "ddp_static_graph": "micro-batches of a step differ in number",
    "prediction_loss_only": _PREDICTIONS,
    "include_for_metrics": _PREDICTIONS,
    "batch_eval_metrics": _PREDICTIONS,
    "save_only_model": "a checkpoint is what a run goes on from, and without the optimizer it would be another run; "
    "final/ and best/ have the model alone, and training.save_total_limit (save_total_limit) bounds the disk",
    "save_on_each_node": "a checkpoint is one folder that all nodes see",
    "enable_jit_checkpoint": "signals save by themselves: exit code 75 (in Python: interruption=)",
    "load_best_model_at_end": "eval.metric keeps the best model in best/; in Python save_strategy='best' and "
    "save_total_limit=1 make the newest checkpoint the best one",
    "push_to_hub": _PUSH,
    "hub_model_id": _PUSH,
    "hub_revision": _PUSH,
    "debug": "metrics.jsonl and nonfinite/ say which rows are not finite",
}
"""Would do something else than they say, or nothing: refused, and why."""


def extra_fault(name: str) -> str | None:
    """Why a recipe's `training.extra` cannot hold a name; None: it can."""
    known = training_argument_names()
    if name in KEYS:
        return f"{name} is set by the recipe itself: {KEYS[name]}"
    if name in IDLE or name in REFUSED:
        return f"{name} is not taken: {IDLE.get(name) or REFUSED[name]}"
    if name in known:
        return None if name in PASSED else f"{name} is not supported: posttrain does not know it yet"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{name} is no field of transformers.TrainingArguments{hint}"


@cache
def training_argument_names() -> frozenset[str]:
    """The fields of the installed transformers' TrainingArguments, read from its source: importing it would take seconds."""
    found = find_spec("transformers")
    assert found is not None and found.origin is not None  # it is a requirement
    tree = ast.parse(Path(found.origin).with_name("training_args.py").read_text(encoding="utf-8"))
    of_class = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    fields = [node for node in of_class.body if isinstance(node, ast.AnnAssign)]
    return frozenset(field.target.id for field in fields if isinstance(field.target, ast.Name))
