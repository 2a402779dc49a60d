"""Sculpting Subspaces (OSF, arXiv:2504.07097): what is trained stays orthogonal to the directions that are frozen.

W = U_h S_h V_h + U_l S_l V_l, of which the second term is trained. peft projects gradients; an optimizer that scales them
entry by entry, as Adam does, brings the frozen directions back. So the change of the weights is projected, after each step:
U_l = U_0 + (I - U_h U_h^T) (U_l - U_0), and V_l alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def keep_subspaces(model: Any) -> None:
    """Projects what an optimizer step has changed of a model with adapters of OSF; others stay as they are."""
    if not any(str(config.peft_type).endswith("OSF") for config in (getattr(model, "peft_config", None) or {}).values()):
        return
    from peft.tuners.osf.layer import OSFLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, OSFLayer)]
    for layer in layers:
        for name, trained in layer.osf_svd_params.items():
            frozen: dict[str, Tensor] = dict(layer.named_buffers())
            up, across = frozen.get(f"_osf_U_high.{name}"), frozen.get(f"_osf_V_high.{name}")
            _keep(trained["U_low"], frozen[f"_osf_U_low_init.{name}"], up)
            _keep(trained["V_low"].T, frozen[f"_osf_V_low_init.{name}"].T, None if across is None else across.T)


def _keep(now: Tensor, first: Tensor, high: Tensor | None) -> None:
    """Columns of `now`; without `high`, which peft leaves out where both are a whole basis, I - U_h U_h^T is U_0 U_0^T."""
    change = now - first
    kept = first @ (first.T @ change) if high is None else change - high @ (high.T @ change)
    now.copy_(first + kept)
