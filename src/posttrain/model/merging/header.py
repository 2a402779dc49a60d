"""Safetensors files written a block at a time, where the library's own writer wants all tensors of a file in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from posttrain.model.weights import SHARD_BYTES

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of tensors that can be averaged, by safetensors' names."""
NAMES = {
    **{dtype: name for name, dtype in DTYPES.items()},
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNED = 8
Shapes = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class WriteTensors:
    """Files of bounded size in a folder, with their index where there are several; blocks come in `order`."""

    def __init__(self, folder: Path, shapes: Shapes) -> None:
        self._folder, self._shapes, self._stack = folder, shapes, ExitStack()
        sizes = {name: _bytes(*shape) for name, shape in shapes.items()}
        self._shards: list[list[str]] = [[]]
        held = 0
        for name in sorted(shapes, key=lambda name: (-shapes[name][0].itemsize, name)):  # widest first: all are aligned
            if self._shards[-1] and held + sizes[name] > SHARD_BYTES:
                self._shards.append([])
                held = 0
            self._shards[-1].append(name)
            held += sizes[name]
        self._sizes = sizes
        self.order = [name for shard in self._shards for name in shard]
        self._place = self._left = 0

    def __enter__(self) -> WriteTensors:
        self._files = [self._begun(*one) for one in zip(self._names(), self._shards, strict=True)]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stack.close()
        if kind is None and len(self._shards) > 1:
            of = {name: file for file, shard in zip(self._names(), self._shards, strict=True) for name in shard}
            index = {"metadata": {"total_size": sum(self._sizes.values())}, "weight_map": of}
            (self._folder / "model.safetensors.index.json").write_text(json.dumps(index))

    def block(self, block: Tensor) -> None:
        """The next elements of the tensor whose turn it is, flat; cast to its dtype."""
        if not block.numel():
            return
        while not self._left:
            self._left, self._place = self._sizes[self.order[self._place]], self._place + 1
        name = self.order[self._place - 1]
        shard = next(i for i, names in enumerate(self._shards) if name in names)
        data = block.to(self._shapes[name][0]).contiguous().view(torch.uint8).numpy()
        self._left -= len(data)
        self._files[shard].write(data.data)

    def _names(self) -> Sequence[str]:
        many = len(self._shards)
        if many == 1:
            return ["model.safetensors"]
        return [f"model-{number:05d}-of-{many:05d}.safetensors" for number in range(1, many + 1)]

    def _begun(self, file: str, names: Sequence[str]) -> BinaryIO:
        entries, start = dict[str, object](), 0
        for name in names:
            dtype, shape = self._shapes[name]
            entries[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, start + self._sizes[name]]}
            start += self._sizes[name]
        header = json.dumps({"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")).encode()
        header += b" " * (-len(header) % ALIGNED)
        opened = self._stack.enter_context((self._folder / file).open("wb"))
        opened.write(len(header).to_bytes(8, "little") + header)
        return opened


def _bytes(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    size = dtype.itemsize
    for side in shape:
        size *= side
    return size
