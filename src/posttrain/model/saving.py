"""Models saved as folders: whole or not at all."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posttrain.distributed import ranks
from posttrain.distributed.sharding import is_sharded, whole_copy
from posttrain.model.weights import engine_weights, write_shards


def save_model(model: Any, tokenizer: Any, folder: Path, note: Mapping[str, Any] | None = None) -> None:
    """Model and tokenizer, in place of what was there; an adapter is merged into a copy of its base, and kept beside it.

    All ranks call it, and the first writes. A model that they share is gathered a bucket at a time. `note` is written to
    note.json.
    """
    fresh, former = (folder.with_name(f"{folder.name}.{word}") for word in ("partial", "former"))
    for path in (fresh, former) if ranks.is_main() else ():
        shutil.rmtree(path, ignore_errors=True)
    if is_sharded(model):
        _save_gathered(model, fresh)
    elif ranks.is_main():
        _save(model, fresh)
    if ranks.is_main():
        tokenizer.save_pretrained(fresh)
        if note is not None:
            (fresh / "note.json").write_text(json.dumps(note))
        if folder.exists():
            os.replace(folder, former)
        os.replace(fresh, folder)
        shutil.rmtree(former, ignore_errors=True)
    ranks.barrier(f"saving {folder.name}")


def _save(model: Any, folder: Path) -> None:
    whole = copy.deepcopy(model).merge_and_unload() if hasattr(model, "merge_and_unload") else model
    whole.save_pretrained(folder)
    if whole is not model:
        model.save_pretrained(folder / "adapter")


def _save_gathered(model: Any, folder: Path) -> None:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    tied = base.config.tie_word_embeddings
    weights = ((name, tensor) for name, tensor in engine_weights(model) if not (tied and name == "lm_head.weight"))
    adapter = {name: whole_copy(p).cpu() for name, p in model.named_parameters() if "lora_" in name}
    if ranks.is_main():
        folder.mkdir(parents=True)
        config = copy.deepcopy(base.config)
        vars(config).pop("distributed_config", None)
        config.save_pretrained(folder)
        base.generation_config.save_pretrained(folder)
        write_shards(weights, folder)
        if adapter:
            model.save_pretrained(folder / "adapter", state_dict=adapter)
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
    """A copy that is there whole or not at all."""
    fresh = target.with_name(f"{target.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(source, fresh)
    os.replace(fresh, target)
