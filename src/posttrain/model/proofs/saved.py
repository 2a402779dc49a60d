"""The proof of a saved model, after every save: its files, its tokenizer, and where there is room its log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from posttrain.distributed import ranks
from posttrain.distributed.deepspeed import loaded_whole
from posttrain.distributed.sharding import is_sharded
from posttrain.model.adapters.rounded import quantization_of
from posttrain.model.adapters.writing import adapter_state
from posttrain.model.proofs.files import files_fault
from posttrain.model.proofs.rows import ProbeRows, agree, largest
from posttrain.model.proofs.tokens import tokenizer_fault
from posttrain.model.weights import Weights, aliases, engine_weights
from posttrain.telling import tell

ROOM = 1.3  # of the files' size: what a second copy takes while it is loaded and reads the rows


def saved_fault(
    folder: Path,
    model: Any,
    tokenizer: Any,
    rows: Sequence[Sequence[int]],
    merged: Any,
    dtype: torch.dtype | None = None,
) -> str | None:
    """What is wrong with what was saved, or None. All ranks call it, and all are told the same.

    Args:
        folder: with the model, whole, and its tokenizer.
        model: that was trained, as it is, with its adapter.
        tokenizer: that it was trained with.
        rows: token ids of the first rows of the data.
        merged: the whole model that was written, where an adapter was merged into it by peft.
        dtype: that its parameters were cast to, where they were.
    """
    adapted = hasattr(model, "peft_config")
    fault = files_fault(folder, _expected(model, merged, dtype), aliases(model), merged=adapted)
    rounded = quantization_of(model) is not None
    if fault is None and adapted and (merged is not None or (rounded and ranks.is_main())):
        fault = files_fault(folder / "adapter", adapter_state(model).items())
    fault = ranks.broadcast(fault, "the proof of the files")
    if fault is None and ranks.is_main():
        fault = tokenizer_fault(tokenizer, folder, rows)
    fault = ranks.broadcast(fault, "the proof of the tokenizer")
    return fault or score_fault(folder, model, ProbeRows.of(rows, len(tokenizer)))


def checkpoint_fault(folder: Path, model: Any) -> str | None:
    """What is wrong with a checkpoint's files of a model that a rank has whole, or of its adapter, or None."""
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        return files_fault(folder, get_peft_model_state_dict(model, adapter_name=model.active_adapter).items())
    return files_fault(folder, _expected(model, None, None), aliases(model))


def _expected(model: Any, merged: Any, dtype: torch.dtype | None) -> Weights:
    """What was to be written: adapters are added here to one matrix at a time, apart from peft's way of merging them."""
    if is_sharded(model) or quantization_of(model) is not None:
        return engine_weights(model, dtype)
    whole = model if merged is None else merged
    state = whole.state_dict()
    written = revert_weight_conversion(whole, state)
    if merged is not None and written is state:
        return engine_weights(model, dtype)
    kept = {name for name, _ in whole.named_buffers()}
    return ((name, value if name in kept else value.to(dtype or value.dtype)) for name, value in written.items())


def score_fault(folder: Path, model: Any, rows: ProbeRows) -> str | None:
    """Whether a folder's model gives other log-probs than one in memory, where there is room for a second copy."""
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors")) if ranks.is_main() else 0
    free = psutil.virtual_memory().available
    fits = ranks.broadcast(ROOM * size < free, "the room for a second copy")
    if not fits:
        tell(
            "save-not-scored",
            f"{folder.name}: its files and tokenizer are proved. It was not loaded again, for a second copy takes about "
            f"{ROOM * size / 1e9:.3g} GB and {free / 1e9:.3g} GB are free.",
        )
        return None
    here = rows.logp(model) if is_sharded(model) or ranks.is_main() else None
    fault = None
    if here is not None and ranks.is_main():
        fault = _difference(folder, model, here, rows)
    return ranks.broadcast(fault, "the proof of the log-probs")


def _difference(folder: Path, model: Any, here: Tensor, rows: ProbeRows) -> str | None:
    try:
        with loaded_whole():
            again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", use_safetensors=True)
    except Exception as error:  # whatever a model's class raises
        return f"AutoModelForCausalLM cannot load it: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    there = rows.logp(again)
    if agree(there, here, model, again):
        return None
    return f"its log-probs differ from those of the trained model by up to {largest(there, here):.3g} nats"
