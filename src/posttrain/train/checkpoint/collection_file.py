"""A collection as a file, for a checkpoint between two of its steps: numbers as safetensors, all else as its JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.estimator.batch import Batch
from posttrain.train.collect.collection import Collection

NAMED = "rewards_by_name."
PARTS = ("prompt", "completion", "mask")


def save(collection: Collection, path: Path) -> None:
    """Rows, units, steps and the batch with all its log-probs and advantages; not what was only to be shown."""
    tensors: dict[str, Tensor] = {}
    for part in PARTS:
        arrays = [getattr(row, part) for row in collection.rows]
        tensors[f"rows.{part}"] = torch.from_numpy(np.concatenate(arrays))
        tensors[f"rows.{part}.sizes"] = torch.tensor([len(array) for array in arrays])
    fields = {field.name: getattr(collection.batch, field.name) for field in dataclasses.fields(collection.batch)}
    named = fields.pop("rewards_by_name")
    fields |= {NAMED + name: value for name, value in named.items()}
    tensors |= {f"batch.{name}": value.contiguous() for name, value in fields.items() if isinstance(value, Tensor)}
    rest = {name: getattr(collection, name) for name in ("units", "steps", "where", "muted")}
    rest["progress"] = collection.batch.progress
    save_file(tensors, path, {"collection": json.dumps(rest)})


def load(path: Path) -> Collection:
    """What `save` has written."""
    with safe_open(path, "pt") as file:
        rest: dict[str, Any] = json.loads(file.metadata()["collection"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
    columns = [
        np.split(tensors[f"rows.{part}"].numpy(), np.cumsum(tensors[f"rows.{part}.sizes"].numpy())[:-1]) for part in PARTS
    ]
    fields: dict[str, Any] = {
        name.removeprefix("batch."): tensor for name, tensor in tensors.items() if name.startswith("batch.")
    }
    named = {name.removeprefix(NAMED): fields.pop(name) for name in list(fields) if name.startswith(NAMED)}
    units, steps = (tuple(map(tuple, rest[name])) for name in ("units", "steps"))
    return Collection(
        rows=tuple(Row(*parts) for parts in zip(*columns, strict=True)),
        units=units,
        steps=steps,
        where=tuple(rest["where"]),
        muted=tuple(rest["muted"]),
        batch=Batch(**fields, rewards_by_name=named, progress=rest["progress"]),
    )
