"""An adapter of every kind, and of LoRA's other beginnings, that fits the tiny model of the tests."""

from __future__ import annotations

from typing import Any

import torch

from posttrain.settings.model import Adapter

ATTENTION = ["q_proj", "v_proj", "o_proj"]
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"r": 4},
    "dora": {"r": 4},
    "rslora": {"r": 4},
    "boft": {},
    "c3a": {"options": {"block_size": 16}},
    "deft": {"r": 4},
    "delora": {"r": 4},
    "fourierft": {"options": {"n_frequency": 50}},
    "frod": {},
    "glora": {"r": 4},
    "gralora": {"r": 4, "alpha": 8},
    "hira": {"r": 4},
    "hra": {"r": 4},
    "ia3": {},
    "ln_tuning": {},
    "loha": {"r": 4},
    "lokr": {"r": 4},
    "miss": {"r": 4},
    "oft": {"options": {"oft_block_size": 8}},
    "osf": {"options": {"effective_rank": 8}},
    "peanut": {"r": 4},
    "psoft": {"r": 4},
    "pvera": {"r": 8},
    "randlora": {"r": 8, "alpha": 16},
    "road": {"options": {"group_size": 8}},
    "shira": {"r": 4},
    "supertuning": {},
    "tinylora": {"r": 2},
    "trainable_tokens": {"options": {"token_indices": [60, 79, 89]}},
    "unilora": {"r": 4},
    "vblora": {"r": 4, "options": {"vector_length": 16, "num_vectors": 8}},
    "vera": {"r": 8},
    "waveft": {"options": {"n_frequency": 50}},
}
"""By kind."""
BEGINNINGS: dict[str, dict[str, Any]] = {
    **{init: {"r": 4, "init": init} for init in ("gaussian", "orthogonal", "mica", "olora", "pissa", "pissa_niter_4")},
    "dora by pissa": {"kind": "dora", "r": 4, "init": "pissa"},
    "rslora by olora": {"kind": "rslora", "r": 4, "alpha": 2, "init": "olora"},
    "a whole head beside": {"r": 4, "options": {"modules_to_save": ["lm_head"]}},
    "tokens beside": {"r": 4, "options": {"trainable_token_indices": [60, 79, 89]}},
    "an embedding": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "ranks": {"r": 4, "init": "pissa", "options": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 8}}},
}
"""Of LoRA."""
CASES = {**{kind: {"kind": kind, **options} for kind, options in OPTIONS.items()}, **BEGINNINGS}


def adapter(case: str) -> Adapter:
    return Adapter.model_validate(CASES[case])


def moved(model: Any, by: float = 0.01, seed: int = 1) -> None:
    """What is trained gets a step in some direction, as large for every tensor beside itself."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(by * torch.randn(parameter.shape, generator=rng, dtype=parameter.dtype))
