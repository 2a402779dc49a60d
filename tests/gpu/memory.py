"""The pretended device's memory is the host's: a CUDA tensor as a CPU tensor over the same bytes, and the other way round."""

from __future__ import annotations

import ctypes
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.utils._pytree import tree_map


def on_cuda(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor of the device."""
    return isinstance(value, Tensor) and value.device.type == "cuda"


def host(tensor: Tensor) -> Tensor:
    """The same memory as a CPU tensor."""
    storage = tensor.untyped_storage()
    if not storage.nbytes():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
    raw = (ctypes.c_byte * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(raw, dtype=torch.uint8).untyped_storage()
    return torch.empty(0, dtype=tensor.dtype).set_(flat, tensor.storage_offset(), tensor.shape, tensor.stride())


def device(tensor: Tensor) -> Tensor:
    """A CUDA tensor with a CPU tensor's values and strides."""
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    host(made).copy_(tensor)
    return made


def all_on_host(values: Any) -> Any:
    """Tensors anywhere in a tree, as CPU tensors."""
    return tree_map(lambda value: host(value) if on_cuda(value) else value, values)


def all_on_device(values: Any) -> Any:
    """Tensors anywhere in a tree, as CUDA tensors."""
    return tree_map(lambda value: device(value) if isinstance(value, Tensor) else value, values)
