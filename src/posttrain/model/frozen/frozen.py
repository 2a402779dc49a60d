"""A model that takes no gradient: on the device, or shared out over the ranks as the policy is."""

from __future__ import annotations

from collections.abc import Set
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from posttrain.distributed.sharding import is_sharded, readable, shard, whole_copy
from posttrain.estimator.divergence import Divergence
from posttrain.model.head import Head, ReferenceStates
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.scoring import Scorer, hidden_states, output_head
from posttrain.settings.distributed import DistributedConfig


class Frozen:
    """Scores rows under a model that is not trained. Its dropout is off.

    Args:
        model: in evaluation; its parameters take no gradient.
        shared: the ids of parameters that are the policy's as well.
    """

    def __init__(self, model: Any, *, shared: Set[int] = frozenset()) -> None:
        self._model, self._shared_with_policy = model, shared

    @property
    def model(self) -> Any:
        """What rows are scored under."""
        return self._model

    def place(self, accelerator: Any, distributed: DistributedConfig | None) -> None:
        """Brings it to the device, or to the ranks that share the policy, in memory of its own."""
        if distributed is not None:
            shard(self._model, distributed, bf16=accelerator.mixed_precision == "bf16")
        deepspeed = accelerator.distributed_type.name == "DEEPSPEED"
        if deepspeed and accelerator.state.deepspeed_plugin.zero_stage == 3:
            self._model = readable(self._model, accelerator)
        elif not is_sharded(self._model):
            for parameter in self._model.parameters():
                dtype = torch.bfloat16 if deepspeed and accelerator.mixed_precision == "bf16" else parameter.dtype
                if id(parameter) not in self._shared_with_policy:  # DeepSpeed casts the policy
                    parameter.data = parameter.data.to(accelerator.device, dtype, copy=True)
            self._model.to(accelerator.device)

    def frozen(self) -> AbstractContextManager[Any]:
        """Within it the model is the one that was frozen."""
        return nullcontext()

    @torch.no_grad()
    def logp(self, inputs: ModelInputs, loss_mask: Bool[Tensor, "B T"], scorer: Scorer) -> Float[Tensor, "B T"]:
        """Log-probs of the tokens that carry loss."""
        with self.frozen():
            return scorer.score(self._model, inputs, loss_mask).logp

    def states(self, inputs: ModelInputs, by: Divergence) -> ReferenceStates:
        """What a full-vocabulary divergence from it needs."""
        with self.frozen():
            head = output_head(self._model)
            bias = None if head.bias is None else whole_copy(head.bias)
            return ReferenceStates(hidden_states(self._model, inputs), Head(whole_copy(head.weight), bias), by)
