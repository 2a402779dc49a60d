"""Rows as the model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posttrain.model.layout.attention import Layout

ALIGNED = 16  # bytes: a multiple of every dtype's


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Rows as the model reads them, and where in them the tokens that carry loss are predicted.

    `row`, `position` say where the hidden state that predicts a scored token stands; `index` where its log-prob goes in
    [B, T]; `target` is its id. All four have one entry for each scored token. A packed row has a layout and position ids,
    and no mask.
    """

    input_ids: Int[Tensor, "B S"]
    attention_mask: Bool[Tensor, "B S"] | None
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    target: Int[Tensor, " n"]
    position_ids: Int[Tensor, "1 S"] | None = None
    layout: Layout | None = None

    def to(self, device: torch.device) -> ModelInputs:
        """The same on another device, sent there in one copy for which nothing waits."""
        if self.input_ids.device == device:
            return self
        own = {name: one for name in self.__slots__ if isinstance(one := getattr(self, name), Tensor)}
        of_layout = () if self.layout is None else self.layout.tensors
        sent = _at_once([*own.values(), *of_layout], device)
        layout = None if self.layout is None else self.layout.with_tensors(*sent[len(own) :])
        return replace(self, layout=layout, **dict(zip(own, sent, strict=False)))  # type: ignore[arg-type]


def _at_once(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    whole = [-(-one.nbytes // ALIGNED) * ALIGNED for one in tensors]
    pinned = device.type == "cuda" and tensors[0].device.type == "cpu"
    together = torch.empty(sum(whole), dtype=torch.uint8, device=tensors[0].device, pin_memory=pinned)
    for one, room in zip(tensors, together.split(whole), strict=True):
        room[: one.nbytes].view(one.dtype).copy_(one.flatten())
    rooms = together.to(device, non_blocking=True).split(whole)
    return [room[: one.nbytes].view(one.dtype).view(one.shape) for one, room in zip(tensors, rooms, strict=True)]
