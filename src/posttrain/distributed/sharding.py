"""Models of which every rank holds a part: sharding them, looking at them whole, and proof that they really are sharded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from posttrain.distributed.ranks import world
from posttrain.errors import SetupError
from posttrain.settings.distributed import DistributedConfig


def shard(model: Any, config: DistributedConfig, *, bf16: bool) -> None:
    """Spreads the parameters of a model over all ranks, under zero3 and fsdp2, one after another: no device has all of them.

    Raises:
        SetupError: fsdp2, and the model has no plan of what goes together, or its embedding and its head share a matrix.
    """
    if world() == 1 or not config.shares_parameters:
        return
    if config.by_deepspeed:
        _shard_by_deepspeed(model, config, bf16=bf16)
    else:
        _shard_by_torch(model, config)


def _shard_by_deepspeed(model: Any, config: DistributedConfig, *, bf16: bool) -> None:
    import deepspeed  # pyright: ignore[reportMissingImports]  # an extra

    for parameter in model.parameters() if bf16 else ():
        parameter.data = parameter.data.bfloat16()
    zero = {"stage": 3, **({"offload_param": {"device": "cpu"}} if config.offload else {})}
    deepspeed.zero.Init(
        module=model,
        config_dict_or_path={"train_micro_batch_size_per_gpu": 1, "bf16": {"enabled": bf16}, "zero_optimization": zero},
    )


def _shard_by_torch(model: Any, config: DistributedConfig) -> None:
    from transformers.distributed.configuration_utils import DistributedConfig as Plan

    away = config.offload and torch.cuda.is_available()  # without a device all is in the CPU's memory
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    if head is not None and getattr(embedding, "weight", None) is getattr(head, "weight", embedding):
        raise SetupError(
            "distributed.mode: fsdp2 does not take a model whose embedding and head share a matrix: transformers shares them "
            "out apart. Take zero3."
        )
    try:
        plan, _, mesh = type(base).prepare_distribute_model(Plan(fsdp_size=world(), fsdp_cpu_offload=away))
        type(base).maybe_distribute_model(base, plan, mesh)
    except (ValueError, OSError) as error:
        raise SetupError(f"distributed.mode: fsdp2 does not take {type(base).__name__}: {error} Take zero3.") from error


def reshard(model: nn.Module) -> None:
    """Gives back what a forward pass of FSDP2 has left whole: an optimizer that is made of it then would change copies."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def is_sharded(model: nn.Module) -> bool:
    """Whether a forward pass of the model is one that all ranks make together."""
    return any(_is_zero3(p) or hasattr(p, "full_tensor") for p in model.parameters())


def whole(tensor: Tensor) -> Tensor:
    """The tensor of which FSDP2 has spread the rows over the ranks; any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # type: ignore[operator]


def whole_copy(parameter: Tensor) -> Tensor:
    """A parameter without gradient: as it is where a rank has all of it, else a whole copy, which all ranks make together."""
    if not _is_zero3(parameter):
        return whole(parameter.detach())
    with gathered_parameters([parameter]):
        return parameter.detach().clone()


@contextlib.contextmanager
def gathered_parameters(tensors: Iterable[Tensor]) -> Iterator[None]:
    """While entered, those of the tensors that ZeRO-3 has spread over the ranks are whole on every rank."""
    spread = [tensor for tensor in tensors if _is_zero3(tensor)]
    if not spread:
        yield
        return
    import deepspeed  # pyright: ignore[reportMissingImports]  # an extra

    with deepspeed.zero.GatheredParameters(spread):
        yield


def elements(tensor: Tensor) -> int:
    """How many numbers the whole tensor has."""
    return getattr(tensor, "ds_numel", tensor.numel())


def shape(tensor: Tensor) -> tuple[int, ...]:
    """Of the whole tensor."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def size(tensor: Tensor) -> int:
    """Bytes of the whole tensor."""
    return elements(tensor) * tensor.element_size()


def mode_in_effect(accelerator: Any, model: nn.Module) -> str:
    """What a wrapped model really is: ddp, zero1 to zero3, fsdp2, or one process."""
    kind = accelerator.distributed_type.name
    if kind == "DEEPSPEED":
        return f"zero{accelerator.deepspeed_engine_wrapped.engine.zero_optimization_stage()}"
    parameters = list(model.parameters())
    if any(hasattr(p, "full_tensor") for p in parameters):
        return "fsdp2"
    return "ddp" if isinstance(model, nn.parallel.DistributedDataParallel) else "one process"


def check_mode(asked: DistributedConfig | None, effect: str) -> None:
    """Refuses a mode that is not the one asked for.

    Raises:
        SetupError: names both.
    """
    if asked is None or (world() == 1 and not asked.by_deepspeed):
        return
    if asked.mode != effect:
        raise SetupError(
            f"distributed.mode: {asked.mode} was asked for, and {effect} is in effect: nothing is trained in another mode "
            "than the recipe says."
        )


def elements_here(model: nn.Module) -> int:
    """How many of the model's numbers this rank holds."""
    return sum(_here(p).numel() for p in model.parameters())


def readable(model: Any, accelerator: Any) -> Any:
    """A frozen model that ZeRO-3 has spread over the ranks, with what makes its layers whole while they are passed."""
    import deepspeed  # pyright: ignore[reportMissingImports]  # an extra

    plugin = accelerator.state.deepspeed_plugin.deepspeed_config
    kept = ("bf16", "train_micro_batch_size_per_gpu")
    config = {name: plugin[name] for name in kept if name in plugin} | {"zero_optimization": {"stage": 3}}
    engine, *_ = deepspeed.initialize(model=model, config=config)
    engine.eval()
    return engine.module


def _here(parameter: Tensor) -> Tensor:
    if _is_zero3(parameter):
        return parameter.ds_tensor  # type: ignore[attr-defined]
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter  # type: ignore[operator]


def _is_zero3(tensor: Tensor) -> bool:
    return hasattr(tensor, "ds_id")
