"""The proof of a model's files: each tensor against what was to be written, one at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

ULPS = 4  # by which a matrix with an adapter in it may differ where it was added in another order
_BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Files:
    """The safetensors files of a folder, as transformers finds them: by their index where there is one."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        paths, listed = sorted(folder.glob("*.safetensors")), dict[str, str]()
        index = next(iter(folder.glob("*.safetensors.index.json")), None)
        if index is not None:
            listed = json.loads(index.read_text())["weight_map"]
            paths = sorted({folder / name for name in listed.values()})
        self._handles: dict[str, Any] = {}
        for path in paths:
            handle = stack.enter_context(safe_open(path, framework="pt"))
            self._handles.update(dict.fromkeys(handle.keys(), handle))
        self.lacking = sorted(listed.keys() - self._handles.keys())
        self.faults = (
            [f"{name} is in its index and in no file" for name in listed if name not in self._handles] if index else []
        )

    @property
    def names(self) -> Collection[str]:
        """Of all tensors."""
        return self._handles.keys()

    def read(self, name: str) -> Tensor:
        """A tensor, on the CPU."""
        return self._handles[name].get_tensor(name)

    def sliced(self, name: str) -> Any:
        """A tensor of which parts can be read: safetensors' own slice, with its shape and dtype."""
        return self._handles[name].get_slice(name)


def files_fault(
    folder: Path, expected: Iterable[tuple[str, Tensor]], aliases: Iterable[set[str]] = (), *, merged: bool = False
) -> str | None:
    """The first difference between a folder's tensors and those that were to be written, or None.

    All of `expected` is run through, whatever is found, for other ranks may take part in making it.

    Args:
        folder: with safetensors files.
        expected: name and tensor.
        aliases: names of one tensor, of which one must be there.
        merged: an adapter was added to matrices, which may be rounded otherwise.
    """
    faults, seen = list[str](), set[str]()
    with ExitStack() as stack:
        try:
            files = Files(folder, stack)
        except (OSError, ValueError, SafetensorError) as error:
            faults.append(f"its files cannot be read: {error}")
            files = None
        for name, tensor in expected:
            if files is None or faults:
                continue
            if name not in files.names:
                group = next((group for group in aliases if name in group), set[str]())
                if not group & set(files.names):
                    faults.append(f"{name} is in no file")
                continue
            seen.add(name)
            fault = _difference(files.read(name), tensor.detach(), merged=merged)
            if fault is not None:
                faults.append(f"{name} {fault}")
        if files is not None and not faults:
            faults = [
                *files.faults,
                *(f"{name} is in its files and not of the model" for name in sorted({*files.names} - seen)),
            ]
    return faults[0] if faults else None


def _difference(there: Tensor, here: Tensor, *, merged: bool) -> str | None:
    if there.dtype != here.dtype:
        return f"is {there.dtype} in place of {here.dtype}"
    if there.shape != here.shape:
        return f"has the shape {tuple(there.shape)} in place of {tuple(here.shape)}"
    here = here.cpu().contiguous()
    bits = _BITS[here.element_size()]
    if torch.equal(there.view(bits) if there.dim() else there, here.view(bits) if here.dim() else here):
        return None
    if merged and here.is_floating_point():
        bound = ULPS * torch.finfo(here.dtype).eps
        if torch.allclose(there.double(), here.double(), rtol=bound, atol=bound * float(here.abs().max())):
            return None
    return "has other values"
