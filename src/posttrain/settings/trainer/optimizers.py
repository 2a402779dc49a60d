"""transformers' optimizers, name by name: where each comes from, and which cannot be taken."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

OF_TORCH = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")
OF_PACKAGES = {
    ("bitsandbytes", "bitsandbytes"): (
        *("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_32bit", "paged_adamw_8bit"),
        *("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"),
        *("lion_32bit", "lion_8bit", "paged_lion_32bit", "paged_lion_8bit"),
        *("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"),
    ),
    ("galore_torch", "galore-torch"): ("galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
    ("apollo_torch", "apollo-torch"): ("apollo_adamw",),
    ("schedulefree", "schedulefree"): ("schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd"),
    ("torchao", "torchao"): ("adamw_torch_4bit", "adamw_torch_8bit"),
    ("grokadamw", "grokadamw"): ("grokadamw",),
    ("optimi", "torch-optimi"): ("stable_adamw",),
    ("torchdistx", "torchdistx"): ("adamw_anyprecision",),
    ("torch_xla", "torch_xla"): ("adamw_torch_xla",),
    ("torch_npu", "torch_npu"): ("adamw_torch_npu_fused",),
}
"""By the name of each package in Python and in the index."""
PACKAGE_OF = {name: package for package, names in OF_PACKAGES.items() for name in names}
IN_BACKWARD = (
    *("lomo", "adalomo", "galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise"),
    "apollo_adamw_layerwise",
)
"""Change the weights during the backward pass."""
OF_MODULES = ("galore", "apollo")


def optimizer_fault(extra: Mapping[str, Any]) -> str | None:
    """Why `training.extra` cannot hold its optimizer; None: it can, if its package is there."""
    name = extra.get("optim")
    if name is None:
        return None
    if name in IN_BACKWARD:
        return f"optim: {name} changes weights during the backward pass, where a step that is not finite cannot be left out"
    if name not in (*OF_TORCH, *PACKAGE_OF):
        near = difflib.get_close_matches(str(name), (*OF_TORCH, *PACKAGE_OF), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(OF_TORCH)}, and those of packages"
        return f"optim: {name} is no optimizer of transformers; {hint}"
    if name.startswith(OF_MODULES) and not extra.get("optim_target_modules"):
        return f"optim: {name} needs optim_target_modules beside it, [attn, mlp] for instance"
    return None
