"""An adapter in a folder of its own, such that it is right on the base that it was made for."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from posttrain.model.adapters.rounded import write_note

BEGINNING = "adapter_beginning"
"""The attribute of a model with the LoRA matrices that an init has taken out of the base."""


def keep_beginning(model: Any) -> None:
    """Of LoRA whose init has changed the base: notes what was taken out of it."""
    begun = {name: p.detach().clone() for name, p in model.named_parameters() if ".lora_A." in name or ".lora_B." in name}
    setattr(model, BEGINNING, begun)


def adapter_state(model: Any) -> dict[str, Tensor]:
    """What `write_adapter` writes of a model that a process has whole."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model, state_dict=_state(model), adapter_name=model.active_adapter)


def write_adapter(model: Any, folder: Path, gathered: Mapping[str, Tensor] | None = None) -> None:
    """The adapter as peft saves it; one whose init has changed the base as the LoRA of twice the rank that adds the same to
    the base as it was: B A - B0 A0 = [B, -B0] [A; A0]. `gathered` are its parameters where no process has them.
    """
    name = model.active_adapter
    before = model.peft_config[name]
    try:
        model.peft_config[name] = _config(model, before)
        model.save_pretrained(folder, state_dict=dict(gathered) if gathered is not None else _state(model))
    finally:
        model.peft_config[name] = before
    write_note(model, folder)


def _state(model: Any) -> dict[str, Tensor] | None:
    """Of the whole model, where the adapter is written otherwise than it is."""
    begun: dict[str, Tensor] | None = getattr(model, BEGINNING, None)
    if begun is None:
        return None
    state = model.state_dict()
    for name, first in begun.items():
        now = state[name]
        first = first.to(now)
        state[name] = torch.cat([now, first]) if ".lora_A." in name else torch.cat([now, -first], dim=1)
    return state


def _config(model: Any, own: Any) -> Any:
    if getattr(model, BEGINNING, None) is None:
        return own
    config = copy.copy(own)
    factor = 2**0.5 if config.use_rslora else 2  # so that the scale stays: alpha / r, or alpha / sqrt(r)
    config.init_lora_weights, config.r, config.lora_alpha = True, 2 * own.r, factor * own.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in own.rank_pattern.items()}
    config.alpha_pattern = {name: factor * alpha for name, alpha in own.alpha_pattern.items()}
    return config
