"""What CUDA gives vLLM's weight transfer, on a CPU: memory that two processes see, and a broadcast. All else stays vLLM's.

A plugin of vLLM (`take_effect` is its entry point), which a server loads in each of its processes; the trainer's side calls
it as well.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.multiprocessing.reductions

FILES: dict[int, str] = {}
"""Address of shared memory → the file that it is."""


def take_effect(put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Gives the modules of the transfer a torch with what they ask of CUDA. `put` is setattr, or one that is undone."""
    from vllm.distributed.device_communicators import pynccl  # pyright: ignore[reportMissingImports]
    from vllm.distributed.weight_transfer import base, ipc_engine, nccl_common, nccl_engine, packed_tensor  # pyright: ignore[reportMissingImports]

    for module in (base, ipc_engine, nccl_common, nccl_engine, packed_tensor):
        put(module, "torch", Torch())
    put(packed_tensor, "reduce_tensor", lambda tensor: (None, handle(tensor)))
    put(packed_tensor, "_get_streams", lambda _, count: (STREAM,) * count)
    put(torch.multiprocessing.reductions, "rebuild_cuda_tensor", rebuilt)
    put(pynccl, "PyNcclCommunicator", Broadcast)


STREAM = SimpleNamespace(synchronize=lambda: None)


class Torch:
    """torch, with one GPU."""

    cuda = SimpleNamespace(
        get_device_properties=lambda _: SimpleNamespace(uuid="the GPU"),
        current_stream=lambda: STREAM,
        stream=contextlib.nullcontext,
        ipc_collect=lambda: None,
        is_available=lambda: True,
    )
    accelerator = SimpleNamespace(current_device_index=lambda: 0, synchronize=lambda: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *size: Any, device: Any = None, **options: Any) -> torch.Tensor:
        if device != "cuda":
            return torch.empty(*size, device=device, **options)
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.truncate(size[0])
        made = torch.from_file(file.name, shared=True, size=size[0], **options)
        FILES[made.data_ptr()] = file.name
        return made


def handle(tensor: torch.Tensor) -> tuple[Any, ...]:
    """To shared memory; its seventh part is the number of a device, as CUDA's handles have it."""
    return (FILES[tensor.data_ptr()], len(tensor), None, None, None, None, 0)


def rebuilt(file: str, size: int, *_: Any) -> torch.Tensor:
    return torch.from_file(file, shared=True, size=size, dtype=torch.uint8)


class Broadcast:
    """PyNcclCommunicator by way of the store at which the processes met."""

    def __init__(self, group: Any, device: Any) -> None:
        self._group: Any = group

    def broadcast(self, tensor: torch.Tensor, src: int, stream: Any = None) -> None:
        tensor.copy_(self._group.broadcast(tensor, src))

    def destroy(self) -> None:
        self._group = None
