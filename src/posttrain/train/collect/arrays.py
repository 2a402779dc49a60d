"""A collection as named arrays, for a file or another process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.flat import Flat

REST = "rest"  # what is no array, as the bytes of its JSON
FIELD = "batch."
TAUGHT, SIZES = "rows.teacher_prompt", "rows.teacher_prompt.sizes"
READ = "rows.inputs"
_NOBODY = np.zeros(0, np.int32)


def to_arrays(collection: Collection) -> dict[str, Tensor]:
    """All that is known of it. Rows stand end to end, and none of their tokens twice."""
    flat = collection.flat
    told = ("units", "steps", "where", "sources", "muted", "metrics", "samples", "aside")
    rest = {name: getattr(collection, name) for name in told}
    rest |= {"progress": flat.progress, "coefficients": flat.coefficients, "unit": flat.unit}
    taught = [_NOBODY if row.teacher_prompt is None else row.teacher_prompt for row in collection.rows]
    asked = any(row.teacher_prompt is not None for row in collection.rows)
    corrupted = any(row.inputs is not None for row in collection.rows)
    return {
        **({READ: torch.from_numpy(np.concatenate([row.read for row in collection.rows]))} if corrupted else {}),
        **({TAUGHT: torch.from_numpy(np.concatenate(taught)), SIZES: torch.tensor(list(map(len, taught)))} if asked else {}),
        "rows.prompt": torch.from_numpy(np.concatenate([row.prompt for row in collection.rows])),
        "rows.prompt.sizes": torch.tensor([len(row.prompt) for row in collection.rows]),
        "rows.mask": torch.from_numpy(np.concatenate([row.mask for row in collection.rows])),
        "rows.completion.sizes": torch.from_numpy(flat.lengths),
        **{FIELD + name: value for name, value in flat.fields.items()},
        REST: torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8),
    }


def from_arrays(arrays: Mapping[str, Tensor]) -> Collection:
    """What `to_arrays` was given."""
    rest: dict[str, Any] = json.loads(arrays[REST].numpy().tobytes())
    fields = {name.removeprefix(FIELD): value for name, value in arrays.items() if name.startswith(FIELD)}
    lengths = arrays["rows.completion.sizes"].numpy()
    unit = rest.pop("unit", 2 if "chosen" in fields else 1)  # earlier versions knew of pairs only
    flat = Flat(lengths, fields, rest.pop("progress"), rest.pop("coefficients", None), unit)
    prompts = np.cumsum(arrays["rows.prompt.sizes"].numpy())[:-1]
    parts = [
        np.split(arrays["rows.prompt"].numpy(), prompts),
        *(np.split(arrays[name].numpy(), np.cumsum(lengths)[:-1]) for name in (FIELD + "tokens", "rows.mask")),
    ]
    units, steps = (tuple(map(tuple, rest.pop(name))) for name in ("units", "steps"))
    return Collection(
        rows=tuple(
            Row(*row, teacher_prompt=asked, inputs=read)
            for *row, asked, read in zip(*parts, _taught(arrays), _read(arrays, lengths), strict=True)
        ),
        units=units,
        steps=steps,
        where=tuple(rest.pop("where")),
        sources=tuple(rest.pop("sources", [""] * len(units))),  # earlier versions mixed none
        flat=flat,
        muted=tuple(rest.pop("muted")),
        **rest,
    )


def _read(arrays: Mapping[str, Tensor], lengths: NDArray[np.int64]) -> Iterable[Any]:
    """Of each row what is read in the places of its completion, where that is something else."""
    return np.split(arrays[READ].numpy(), np.cumsum(lengths)[:-1]) if READ in arrays else [None] * len(lengths)


def _taught(arrays: Mapping[str, Tensor]) -> Iterable[Any]:
    """Of each row what its teacher is asked, where that is another prompt."""
    if TAUGHT not in arrays:
        return [None] * len(arrays["rows.prompt.sizes"])
    prompts = np.split(arrays[TAUGHT].numpy(), np.cumsum(arrays[SIZES].numpy())[:-1])
    return [prompt if len(prompt) else None for prompt in prompts]
