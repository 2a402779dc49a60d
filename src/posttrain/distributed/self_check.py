"""DeepSpeed's configuration tried on a model of two layers, before a real one is trained with it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.distributed.ranks import rank
from posttrain.distributed.sharding import whole_copy
from posttrain.errors import SetupError

WIDTH, ROWS, BOUND = (
    8,
    (1, 2, 3),
    0.05,
)  # a lost micro-batch changes the gradient by a third and more, bfloat16 by a hundredth


def check_accumulation(accelerator: Any) -> None:
    """An update made of three unequal micro-batches must be the one that is made of all their rows at once.

    With an offloaded optimizer, versions of DeepSpeed have dropped all micro-batches but the last (arXiv 2604.23747).

    Raises:
        SetupError: it is not.
    """
    config = copy.deepcopy(accelerator.state.deepspeed_plugin.deepspeed_config)
    config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"] = 1, 1
    config.pop("train_batch_size", None)
    config.pop("scheduler", None)
    config.pop("optimizer", None)
    config["gradient_clipping"] = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        torch.manual_seed(1 + rank())
        rows = torch.randn(sum(ROWS), WIDTH)
    split = _update(copy.deepcopy(start), config, rows.split(ROWS))
    at_once = _update(start, config, (rows,))
    difference = float((split - at_once).norm() / at_once.norm())
    if not difference < BOUND:
        raise SetupError(
            f"DeepSpeed loses gradients of micro-batches with this configuration: three of them give another update than "
            f"their rows at once, by {difference:.0%}. Take another version of DeepSpeed, or distributed.offload: false."
        )


def _update(model: nn.Module, config: dict[str, Any], micro_batches: tuple[Tensor, ...]) -> Tensor:
    """By how much one step of SGD moves the parameters."""
    import deepspeed  # pyright: ignore[reportMissingImports]  # an extra

    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    engine: Any = deepspeed.initialize(model=model, optimizer=sgd, config=config)[0]
    parameters: list[Tensor] = list(engine.module.parameters())
    before = [whole_copy(parameter).float().clone() for parameter in parameters]
    for i, rows in enumerate(micro_batches):
        engine.set_gradient_accumulation_boundary(is_boundary=i == len(micro_batches) - 1)
        loss = engine(rows.to(engine.device, parameters[0].dtype)).float().square().sum() / sum(ROWS)
        engine.backward(loss, scale_wrt_gas=False)
    engine.step()
    moved = [(whole_copy(now).float() - then).flatten() for now, then in zip(parameters, before, strict=True)]
    engine.destroy()
    return torch.cat(moved).cpu()
