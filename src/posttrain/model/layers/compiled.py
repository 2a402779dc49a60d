"""A model's layers by torch.compile, where their attention is one operation (`traced.py`).

What stands between matrix products (norms, rotary positions, activations, the casts of autocast) is then a kernel or two in
place of dozens. Layers of one class have one code, which is compiled once for all of them and for rows of any length; what
comes without such a layout, as sampling does, takes the layer as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from posttrain.model.layout.varlen import Varlen

GRAPHS = 64
"""Of one class of layers in a process, at most: one for each of prompts that are shared or not, training, reading, an adapter
that is on or off, frozen parameters. What is beyond would run as it is written, unsaid but for torch's own warning."""


class _Forward:
    """In place of a layer's `forward`; a copy of the layer gets one of its own."""

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        kind = type(self._layer)
        forward = _compiled(kind) if isinstance(options.get("layout"), Varlen) else kind.forward
        return forward(self._layer, *arguments, **options)


@cache
def _compiled(kind: type[nn.Module]) -> Callable[..., Any]:
    known = torch._dynamo.config
    known.recompile_limit = max(known.recompile_limit, GRAPHS)
    return torch.compile(kind.forward, dynamic=True)


def layers_of(model: Any) -> list[nn.Module]:
    """What transformers names as its layers."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set[str](getattr(base, "_no_split_modules", None) or ())
    return [module for module in base.modules() if type(module).__name__ in kinds]


def compile_layers(layers: Sequence[nn.Module]) -> None:
    """From now on; each is compiled when it first runs."""
    for layer in layers:
        layer.forward = _Forward(layer)


def as_written(layers: Sequence[nn.Module]) -> None:
    """Takes it back."""
    for layer in layers:
        vars(layer).pop("forward", None)
