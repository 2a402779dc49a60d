"""DeepSpeed's configuration for a mode, and models beside it."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from transformers.integrations import deepspeed

from posttrain.errors import SetupError
from posttrain.settings.distributed import DistributedConfig

BUCKET = 100_000_000
"""Numbers that DeepSpeed exchanges at a time; it holds two buckets. Its own default of 500 million takes 2 GB in bfloat16."""


def deepspeed_config(config: DistributedConfig, *, bf16: bool) -> dict[str, Any] | None:
    """None where DeepSpeed has no part. Sizes and clipping are filled in by transformers.

    The optimizer stays torch's, and gradients are accumulated by the trainer, which has DeepSpeed's count of micro-batches
    at 1 and says itself when a step is whole.

    Raises:
        SetupError: DeepSpeed is not installed.
    """
    if not config.by_deepspeed:
        return None
    if find_spec("deepspeed") is None:
        raise SetupError(
            f"distributed.mode: {config.mode} needs DeepSpeed: pip install 'posttrain[deepspeed]'; or take fsdp2."
        )
    renamed = r"`torch\.distributed\.\w+` is deprecated"  # names by which DeepSpeed calls torch, at every step
    warnings.filterwarnings("ignore", message=renamed, category=FutureWarning)
    if not torch.cuda.is_available():
        _leave_exchanges_to_gloo()
    away = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    sizes = {
        "reduce_bucket_size": BUCKET,
        "stage3_prefetch_bucket_size" if config.shares_parameters else "allgather_bucket_size": BUCKET,
    }
    zero: dict[str, Any] = {"stage": config.stage, "overlap_comm": True, "contiguous_gradients": True, **sizes}
    if config.offload:
        zero["offload_optimizer"] = away
        if config.shares_parameters:
            zero["offload_param"] = away
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        "gradient_clipping": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "train_batch_size": "auto",
    }


def _leave_exchanges_to_gloo() -> None:
    """Ranks on CPUs of one machine: DeepSpeed would compile an exchange of its own when it first starts, which takes a
    compiler, and some forty seconds.
    """
    ops: Any = import_module("deepspeed.ops")
    ops.__compatible_ops__["deepspeed_shm_comm"] = False


@contextlib.contextmanager
def loaded_whole() -> Iterator[None]:
    """In its body, transformers loads models as they are: under ZeRO-3 it would spread them over the ranks."""
    name = "_hf_deepspeed_config_weak_ref"  # transformers can set it and forget it, and has no way to look at it
    before = getattr(deepspeed, name)
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        setattr(deepspeed, name, before)
