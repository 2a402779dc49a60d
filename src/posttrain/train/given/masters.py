"""A model of 16 bits as it is trained: float32 masters, and products in bfloat16 over them."""

from __future__ import annotations

import torch
from torch import nn

from posttrain.telling import tell

HALVES = (torch.bfloat16, torch.float16)


def with_masters(model: nn.Module) -> bool:
    """Makes trained parameters of 16 bits float32, in place: an update below 1/256 of a bfloat16 parameter would be lost.
    Whether there were any, which is told.
    """
    narrow = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter.dtype in HALVES]
    if not narrow:
        return False
    kind = str(narrow[0].dtype).removeprefix("torch.")
    for parameter in narrow:
        parameter.data = parameter.data.float()
    tell(
        "float32-masters",
        f"The model's trained parameters were {kind}, in which small updates are lost: they are float32 from here on, and "
        "products are computed in bfloat16, as with bf16=True. What is saved is float32 too: cast it, by "
        "model.to(torch.bfloat16), when training is done.",
    )
    return True
