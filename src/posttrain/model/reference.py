"""The frozen start model: a copy of the policy, or the policy itself with its adapter switched off."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from posttrain.distributed.sharding import is_sharded, readable, shard, whole_copy
from posttrain.model.head import Head, ReferenceStates
from posttrain.model.layout.inputs import ModelInputs
from posttrain.model.scoring import Scorer, hidden_states, is_linear, output_head
from posttrain.settings.distributed import DistributedConfig


class Reference:
    """Scores rows under the model as it was when this was made. Its dropout is off and it takes no gradient.

    It is made of a policy that is not spread over ranks yet, and has its memory until `place`, before the policy is trained,
    gives it its own: a whole one on the device, or a share of one where the policy is shared out. What is not trained stays
    one tensor for both, if it is not shared out.

    Args:
        policy: with its adapter, where it has one.
        shared_out: its parameters will be spread over the ranks.
        apart: a copy, also where switching the adapter off would do.
        rounded: matrices that are multiplied and nothing else are held in bfloat16: under an autocast to it the same numbers,
            to the last bit, in half the memory.
    """

    def __init__(self, policy: Any, *, shared_out: bool = False, apart: bool = False, rounded: bool = False) -> None:
        self.is_policy = hasattr(policy, "disable_adapter") and not apart
        self._shared_with_policy = set[int]()
        if self.is_policy:
            self._model = policy
            return
        if not shared_out:
            self._shared_with_policy = {id(p) for p in policy.parameters() if not p.requires_grad}
        halves = only_multiplied(policy) if rounded else set[int]()

        def own(p: Tensor) -> Tensor:
            if id(p) in self._shared_with_policy:
                return p
            return torch.nn.Parameter(p.detach().bfloat16() if id(p) in halves else p.detach(), requires_grad=False)

        same = {id(p): own(p) for p in policy.parameters()}
        self._model = copy.deepcopy(policy, same).eval()  # a large model's copy would not fit beside it

    def place(self, accelerator: Any, distributed: DistributedConfig | None) -> None:
        """Makes it independent of the policy, on the device or on the ranks that share the policy."""
        if self.is_policy:
            return
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

    def _frozen(self) -> AbstractContextManager[Any]:
        return self._model.disable_adapter() if self.is_policy else nullcontext()

    @torch.no_grad()
    def logp(self, inputs: ModelInputs, loss_mask: Bool[Tensor, "B T"], scorer: Scorer) -> Float[Tensor, "B T"]:
        """Log-probs of the tokens that carry loss."""
        with self._frozen():
            return scorer.score(self._model, inputs, loss_mask).logp

    def states(self, inputs: ModelInputs) -> ReferenceStates:
        """What the full-vocabulary KL from the start model needs."""
        with self._frozen():
            head = output_head(self._model)
            bias = None if head.bias is None else whole_copy(head.bias)
            return ReferenceStates(hidden_states(self._model, inputs), Head(whole_copy(head.weight), bias))


def only_multiplied(model: nn.Module) -> set[int]:
    """The ids of those parameters that autocast would make bfloat16 each time that they are read: linear layers' alone."""
    linear, elsewhere = set[int](), set[int]()
    for module in model.modules():
        (linear if is_linear(module) else elsewhere).update(id(p) for p in module.parameters(recurse=False))
    return linear - elsewhere
