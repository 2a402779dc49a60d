"""A collection as a file, for a checkpoint between two of its steps."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from posttrain.train.collect.arrays import FIELD, REST, from_arrays, to_arrays
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.flat import unpadded


def save(collection: Collection, path: Path) -> None:
    """Rows, units, steps and all log-probs and advantages."""
    save_file(to_arrays(collection), path)


def load(path: Path) -> Collection:
    """What `save` has written, or an earlier version of this package, which padded what is known of tokens."""
    with safe_open(path, "pt") as file:
        arrays: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        rest = (file.metadata() or {}).get("collection")
    if rest is not None:
        lengths = arrays["rows.completion.sizes"].numpy()
        arrays = {
            name: unpadded(value, lengths) if name.startswith(FIELD) and value.dim() == 2 else value
            for name, value in arrays.items()
        }
        arrays[REST] = torch.frombuffer(bytearray(rest.encode()), dtype=torch.uint8)
    return from_arrays(arrays)
