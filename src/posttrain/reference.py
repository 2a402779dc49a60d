"""The frozen start model: a copy of the policy, or the policy itself with its adapter switched off."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.distributed.config import DistributedConfig
from posttrain.distributed.sharding import shard, shard_frozen, whole_copy
from posttrain.logprobs import Head, Teacher
from posttrain.scoring import ModelInputs, hidden_states, output_head, score


class Reference:
    """Scores rows under the model as it was when this was made. Its dropout is off and it takes no gradient.

    It is made of a policy that is not spread over ranks yet; `place` then spreads the copy as the policy is.
    """

    def __init__(self, policy: Any) -> None:
        self._adapted = hasattr(policy, "disable_adapter")
        self._model = policy if self._adapted else copy.deepcopy(policy).eval().requires_grad_(False)

    def place(self, accelerator: Any, distributed: DistributedConfig | None) -> None:
        """Brings the copy to the device, or to the ranks that share the policy."""
        if self._adapted:
            return
        if distributed is not None and distributed.mode == "fsdp2":
            shard(self._model, distributed)
        elif accelerator.distributed_type.name == "DEEPSPEED" and accelerator.state.deepspeed_plugin.zero_stage == 3:
            self._model = shard_frozen(self._model, accelerator)
        else:
            self._model.to(accelerator.device)

    def _frozen(self) -> AbstractContextManager[Any]:
        disable: Callable[[], AbstractContextManager[Any]] = getattr(self._model, "disable_adapter", nullcontext)
        return disable()

    @torch.no_grad()
    def logp(self, inputs: ModelInputs, loss_mask: Bool[Tensor, "B T"], *, temperature: float = 1.0) -> Float[Tensor, "B T"]:
        """Log-probs of the tokens that carry loss."""
        with self._frozen():
            return score(self._model, inputs, loss_mask, temperature=temperature).logp

    def teacher(self, inputs: ModelInputs) -> Teacher:
        """What the full-vocabulary KL from the start model needs."""
        with self._frozen():
            head = output_head(self._model)
            bias = None if head.bias is None else whole_copy(head.bias)
            return Teacher(hidden_states(self._model, inputs), Head(whole_copy(head.weight), bias))
