"""ADOPT's steps; the equations stand in adopt.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adopt(Optimizer):
    """Each parameter has a count of its steps, its momentum and its squares, beside itself in memory as Adam has."""

    def __init__(
        self, groups: list[dict[str, Any]], *, lr: float = 1e-3, beta1: float, beta2: float, epsilon: float, floor: float
    ) -> None:
        options = {"beta1": beta1, "beta2": beta2, "epsilon": epsilon, "floor": floor}
        super().__init__(groups, {"lr": lr, "weight_decay": 0.0, **options})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """See torch. A parameter without a gradient is passed over."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    _step(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _step(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state |= {"step": torch.tensor(1.0), "momentum": torch.zeros_like(parameter), "squares": gradient.square()}
        return
    momentum, squares, beta2 = state["momentum"], state["squares"], group["beta2"]
    changes = int(state["step"]) - 1
    divisor = squares.sqrt().clamp_(min=max(group["epsilon"], math.pow(group["floor"], changes)))
    share = 1 - group["beta1"] if changes else 1.0
    momentum.mul_(group["beta1"]).addcdiv_(gradient, divisor, value=share)
    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(momentum, alpha=-group["lr"])
    squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    state["step"] += 1
