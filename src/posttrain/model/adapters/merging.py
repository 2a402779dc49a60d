"""What an adapter makes of each module of its base: the weights with it, one module at a time, and the base as it is."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.errors import SetupError
from posttrain.model.adapters.rounded import Rounded

PREFIX = "base_model.model."
"""Before the names of the base's modules in a model with an adapter; what has none is the adapter's own."""


def adapted_modules(model: Any) -> dict[str, Any]:
    """By their names in the base, the modules that an adapter has put in the place of others."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    found: dict[str, Any] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        within = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper) and name.startswith(PREFIX) and not within:
            found[name] = module
    return {name.removeprefix(PREFIX): module for name, module in found.items()}


def base_of(module: Any) -> nn.Module:
    """The module of the base that another one stands in the place of."""
    while (below := getattr(module, "base_layer", None) or getattr(module, "original_module", None)) is not None:
        module = below
    return module


def own_names(model: Any) -> set[str]:
    """The parameters of an adapter, by their names in the model."""
    if not hasattr(model, "peft_config"):
        return set()
    base = {id(p) for name, module in adapted_modules(model).items() for p in base_of(module).parameters()}
    within = tuple(f"{PREFIX}{name}." for name in adapted_modules(model))
    return {
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in base and (name.startswith(within) or not name.startswith(PREFIX))
    }


def is_added(module: Any) -> bool:
    """Whether it is LoRA on a linear layer and nothing more: the product of its matrices is added to the weight."""
    from peft.tuners.lora import LoraLayer

    return (
        isinstance(module, LoraLayer)
        and isinstance(module.get_base_layer(), nn.Linear)
        and not any(module.use_dora.values())
        and not any(module.lora_bias.values())
        and not module.lora_variant
    )


def own_parameters(module: nn.Module) -> Iterator[Tensor]:
    """Those of an adapter in one module."""
    base = {id(p) for p in base_of(module).parameters()}
    return (p for p in module.parameters() if id(p) not in base)


@torch.no_grad()
def merged(module: Any) -> dict[str, Tensor]:
    """The tensors of the base's module with the adapter in them, by their names in it.

    Raises:
        SetupError: peft cannot merge them.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if isinstance(base_of(module), Rounded):
        module = _over_whole(module)
    base = {id(t) for t in _tensors(base_of(module))}
    apart = copy.deepcopy(module, {id(t): t for t in _tensors(module) if id(t) not in base})
    try:
        if not isinstance(module, BaseTunerLayer):
            return apart.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None).state_dict()
        apart.merge()
        return apart.get_base_layer().state_dict()
    except (ValueError, RuntimeError, AttributeError) as error:
        raise SetupError(
            f"The adapter cannot be merged into the weights, which engines and final/ need: {type(module).__name__} says "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from error


def _over_whole(module: Any) -> Any:
    """A layer of LoRA over rounded weights, as one over the matrix that they stand for; its own tensors are the same."""
    from peft.tuners.lora.layer import Linear

    base: Any = base_of(module)
    whole = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    whole.weight, whole.bias = nn.Parameter(base.values(), requires_grad=False), base.bias
    own = {id(t): t for t in _tensors(module)}
    over = copy.deepcopy(module, {**own, id(base): whole})
    over.__class__ = Linear
    return over


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())
