"""Tensors to a device in one copy, for which nothing waits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNED = 16  # bytes: a multiple of every dtype's


def at_once(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The same tensors on another device, as parts of one; from a CPU to a GPU through pinned memory."""
    whole = [-(-one.nbytes // ALIGNED) * ALIGNED for one in tensors]
    pinned = device.type == "cuda" and tensors[0].device.type == "cpu"
    together = torch.empty(sum(whole), dtype=torch.uint8, device=tensors[0].device, pin_memory=pinned)
    for one, room in zip(tensors, _parts(together, whole), strict=True):
        room[: one.nbytes].view(one.dtype).copy_(one.flatten())
    rooms = _parts(together.to(device, non_blocking=True), whole)
    return [room[: one.nbytes].view(one.dtype).view(one.shape) for one, room in zip(tensors, rooms, strict=True)]


def _parts(together: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    return [*torch.split(together, list(sizes))]
