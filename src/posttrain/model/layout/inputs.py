"""Rows as the model reads them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from posttrain.data.rows import Row
from posttrain.estimator.transfer import at_once
from posttrain.model.layout.attention import Layout


@dataclass(frozen=True, slots=True)
class ModelInputs:
    """Rows as the model reads them, and where in them the tokens that carry loss are predicted.

    `row`, `position` say where the hidden state that predicts a scored token stands; `index` where its log-prob goes in
    [B, T]; `target` is its id. All four have one entry for each scored token. A packed row has a layout and position ids,
    and no mask. `teacher` are the same rows as a teacher reads them, where it reads another prompt; its entries are of the
    same tokens in the same order. `rows` are what was laid out, for a model that is elsewhere.
    """

    input_ids: Int[Tensor, "B S"]
    attention_mask: Bool[Tensor, "B S"] | None
    row: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    target: Int[Tensor, " n"]
    position_ids: Int[Tensor, "1 S"] | None = None
    layout: Layout | None = None
    teacher: ModelInputs | None = None
    rows: tuple[Row, ...] = ()

    def to(self, device: torch.device) -> ModelInputs:
        """The same on another device, sent there in one copy for which nothing waits."""
        if self.input_ids.device == device:
            return self
        own = {name: one for name in self.__slots__ if isinstance(one := getattr(self, name), Tensor)}
        of_layout = () if self.layout is None else self.layout.tensors
        sent = at_once([*own.values(), *of_layout], device)
        layout = None if self.layout is None else self.layout.with_tensors(*sent[len(own) :])
        teacher = None if self.teacher is None else self.teacher.to(device)
        return replace(self, layout=layout, teacher=teacher, **dict(zip(own, sent, strict=False)))  # type: ignore[arg-type]
