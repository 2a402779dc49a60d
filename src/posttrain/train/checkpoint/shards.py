"""What a rank holds of a model that FSDP2 has shared out, and of its optimizer, as a file of the rank's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.distributed import ranks


def are_in(checkpoint: Path) -> bool:
    """Whether a checkpoint is of such a model."""
    return _path(checkpoint).is_file()


def save(model: Any, optimizer: Any, folder: Path) -> None:
    """This rank's share of the parameters, by name, and of what the optimizer keeps for them."""
    states = optimizer.state_dict()
    kept = {i: {name: _here(value) for name, value in state.items()} for i, state in states["state"].items()}
    parameters = {name: _here(p.detach()) for name, p in model.named_parameters()}
    torch.save({"model": parameters, "optimizer": {**states, "state": kept}}, _path(folder))


def load_model(model: Any, checkpoint: Path) -> None:
    """Puts the parameters back into the model's shares."""
    parameters = _read(checkpoint)["model"]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            _here(parameter).copy_(parameters[name])


def load_optimizer(optimizer: Any, checkpoint: Path) -> None:
    """Puts back what the optimizer kept, spread as the parameters are."""
    states = _read(checkpoint)["optimizer"]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    states["state"] = {
        i: {name: _like(value, trained[i]) for name, value in state.items()} for i, state in states["state"].items()
    }
    optimizer.load_state_dict(states)


def _path(checkpoint: Path) -> Path:
    return checkpoint / f"shard_{ranks.rank()}.pt"


def _read(checkpoint: Path) -> dict[str, Any]:
    return torch.load(_path(checkpoint), map_location="cpu", weights_only=True)


def _here(value: Any) -> Any:
    return value.to_local() if hasattr(value, "to_local") else value


def _like(value: Any, parameter: nn.Parameter) -> Any:
    if not isinstance(value, Tensor) or not value.dim() or not hasattr(parameter, "device_mesh"):
        return value
    from torch.distributed.tensor import DTensor

    spread: Any = parameter
    local = value.to(spread.to_local().device)
    return DTensor.from_local(local, spread.device_mesh, spread.placements, shape=spread.shape, stride=spread.stride())
