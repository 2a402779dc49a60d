"""Models saved as folders: whole, on the disk and proved, or not at all."""

from __future__ import annotations

import contextlib
import copy
import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from posttrain.distributed import ranks
from posttrain.distributed.sharding import is_sharded, whole_copy
from posttrain.errors import CheckpointError
from posttrain.model.adapters.merging import own_names
from posttrain.model.adapters.rounded import quantization_of
from posttrain.model.adapters.writing import write_adapter
from posttrain.model.proofs import disk
from posttrain.model.proofs.saved import saved_fault
from posttrain.model.weights import engine_weights, write_shards


def save_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    note: Mapping[str, Any] | None = None,
    *,
    rows: Sequence[Sequence[int]] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Model and tokenizer, in place of what was there; an adapter is merged into a copy of its base, and kept beside it.
    Parameters are cast to `dtype`, but for the adapter's own; they are as they are in memory without one.

    All ranks call it, and the first writes. A model that they share is gathered a bucket at a time. `note` is written to
    note.json. `rows` are token ids of the first rows of the data, on which what was saved is tried.

    Raises:
        CheckpointError: it cannot be written, or it is not what was trained; then it lies under another name.
    """
    with writing(folder) as fresh:
        merged = None
        if is_sharded(model):
            _save_gathered(model, fresh, dtype)
        elif ranks.is_main():
            merged = _save(model, fresh, dtype)
        if ranks.is_main():
            tokenizer.save_pretrained(fresh)
            if note is not None:
                (fresh / "note.json").write_text(json.dumps(note))
            disk.open_to_others(fresh)
        ranks.barrier(f"the files of {folder.name}")
        fault = saved_fault(fresh, model, tokenizer, rows, merged, dtype)
        if fault is not None:
            _keep_apart(fresh, folder, fault)
        if ranks.is_main():
            disk.publish(fresh, folder)
    ranks.barrier(f"saving {folder.name}")


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[Path]:
    """Where a folder is written before it is whole; what is left there goes if it cannot be written.

    Raises:
        CheckpointError: says why.
    """
    fresh = folder.with_name(f"{folder.name}.partial")
    try:
        for path in (fresh, folder.with_name(f"{folder.name}.former")) if ranks.is_main() else ():
            shutil.rmtree(path, ignore_errors=True)
        yield fresh
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{folder} cannot be written: {reason}. What was there before is whole, and so is the last checkpoint; make "
            "room, and the same command goes on."
        ) from error


def _keep_apart(fresh: Path, folder: Path, fault: str) -> None:
    apart = folder.with_name(f"{folder.name}.unproved")
    if ranks.is_main():
        shutil.rmtree(apart, ignore_errors=True)
        os.replace(fresh, apart)
    raise CheckpointError(
        f"{folder} would not be the model that was trained: {fault}. What was written lies in {apart}; the last checkpoint "
        "is whole."
    )


def _save(model: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    """Writes it, and returns the whole model with its adapter in it, where it has one and all of it has room at once."""
    if not hasattr(model, "merge_and_unload"):
        _as_saved(model, dtype).save_pretrained(folder)
        return None
    if quantization_of(model) is not None:
        _write_whole(model, folder, dtype)
        write_adapter(model, folder / "adapter")
        return None
    whole = copy.deepcopy(model).merge_and_unload()
    _as_saved(whole, dtype).save_pretrained(folder)
    write_adapter(model, folder / "adapter")
    return whole


def _as_saved(model: Any, dtype: torch.dtype | None) -> Any:
    """The model, or a copy of it in the machine's memory whose parameters are of the dtype."""
    if dtype is None or all(parameter.dtype == dtype for parameter in model.parameters()):
        return model
    cast = {id(p): torch.nn.Parameter(p.detach().to(dtype).cpu(), p.requires_grad) for p in model.parameters()}
    return copy.deepcopy(model, cast)


def _save_gathered(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    own = own_names(model)
    adapter = {name: whole_copy(p).cpu() for name, p in model.named_parameters() if name in own}
    _write_whole(model, folder, dtype)
    if adapter and ranks.is_main():
        write_adapter(model, folder / "adapter", adapter)


def _write_whole(model: Any, folder: Path, dtype: torch.dtype | None) -> None:
    """The model with its adapter in it, a matrix after the other. All ranks that share one call it."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    tied = base.config.tie_word_embeddings
    weights = ((name, tensor) for name, tensor in engine_weights(model, dtype) if not (tied and name == "lm_head.weight"))
    if ranks.is_main():
        folder.mkdir(parents=True)
        config = copy.deepcopy(base.config)
        vars(config).pop("distributed_config", None)
        config.dtype = dtype or config.dtype
        config.save_pretrained(folder)
        base.generation_config.save_pretrained(folder)
        write_shards(weights, folder)
    for _ in weights:
        pass  # the other ranks take part in the gathering


def withdraw(folder: Path) -> None:
    """Deletes a saved model, if there is one: it is there whole or not at all."""
    former = folder.with_name(f"{folder.name}.former")
    if folder.exists():
        shutil.rmtree(former, ignore_errors=True)
        os.replace(folder, former)
    shutil.rmtree(former, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """A copy that is there whole, byte by byte, or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    with writing(target) as fresh:
        shutil.copytree(source, fresh)
        for path in disk.files(source):
            if not filecmp.cmp(path, fresh / path.relative_to(source), shallow=False):
                raise OSError(f"{path.relative_to(source)} is not what was copied")
        disk.publish(fresh, target)
