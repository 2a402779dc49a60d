"""What would disturb a measurement, or hide what is printed: telemetry, bars, hints, and a collector of garbage that has all
that was imported to look through.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import logging
import os
import warnings

for variable in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_DATASETS_DISABLE_PROGRESS_BARS"):
    os.environ[variable] = "1"  # read when the libraries are imported: this module comes first
os.environ["TOKENIZERS_PARALLELISM"] = "false"


TOUCHED = 8 * 10**9
"""Bytes: more than any case needs."""


def touch() -> None:
    """Writes to memory, at most half of what is free, and gives it back: a virtual machine then has it from its host."""
    import psutil
    import torch

    torch.empty(min(TOUCHED, psutil.virtual_memory().available // 2), dtype=torch.uint8).fill_(1)


def settle() -> None:
    """Silences the libraries, imports what is imported late, and takes it out of the garbage collector's sight.

    accelerate collects garbage at each start of a training: with TRL's imports that is 0.4 s, on either side.
    """
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    import transformers

    transformers.utils.logging.set_verbosity_error()
    with contextlib.suppress(ImportError):
        for trainer in ("sft", "dpo", "grpo"):
            importlib.import_module(f"trl.trainer.{trainer}_trainer")
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
