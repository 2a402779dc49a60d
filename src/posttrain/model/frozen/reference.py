"""The frozen start model: a copy of the policy, or the policy itself with its adapter switched off; or a copy that follows
it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.model.frozen.frozen import Frozen
from posttrain.model.scoring import is_linear
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import MovingReference


class Reference(Frozen):
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
        moves: how it follows the policy; then it is a copy, in the policy's own numbers.
    """

    def __init__(
        self,
        policy: Any,
        *,
        shared_out: bool = False,
        apart: bool = False,
        rounded: bool = False,
        moves: MovingReference | None = None,
    ) -> None:
        self._moves = moves or MovingReference()
        self.is_policy = hasattr(policy, "disable_adapter") and not (apart or self.moves)
        if self.is_policy:
            super().__init__(policy)
            return
        shared = set[int]() if shared_out else {id(p) for p in policy.parameters() if not p.requires_grad}
        halves = only_multiplied(policy) if rounded else set[int]()

        def own(p: Tensor) -> Tensor:
            if id(p) in shared:
                return p
            return torch.nn.Parameter(p.detach().bfloat16() if id(p) in halves else p.detach(), requires_grad=False)

        same = {id(p): own(p) for p in policy.parameters()}
        super().__init__(copy.deepcopy(policy, same).eval(), shared=shared)  # a large model's copy would not fit beside it

    @property
    def moves(self) -> bool:
        """Whether it is another model later."""
        return self._moves.refresh > 0

    @torch.no_grad()
    def follow(self, policy: Any, step: int) -> None:
        """Moves towards the policy, if it is time to after this optimizer step."""
        if not self.moves or step % self._moves.refresh:
            return
        for own, there in zip(self._model.parameters(), policy.parameters(), strict=True):
            if id(own) not in self._shared_with_policy:
                own.lerp_(there.detach().to(own), self._moves.mix)

    def state(self) -> dict[str, Tensor]:
        """What it holds apart from the policy, for a checkpoint."""
        named = self._model.named_parameters()
        return {name: own.detach() for name, own in named if id(own) not in self._shared_with_policy}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state` gave."""
        for name, own in self._model.named_parameters():
            if id(own) not in self._shared_with_policy:
                own.copy_(state[name])

    def place(self, accelerator: Any, distributed: DistributedConfig | None) -> None:
        """Makes it independent of the policy, on the device or on the ranks that share the policy."""
        if not self.is_policy:
            super().place(accelerator, distributed)

    def frozen(self) -> AbstractContextManager[Any]:
        """Without the adapter, where that is what the policy started from."""
        return self._model.disable_adapter() if self.is_policy else super().frozen()


def only_multiplied(model: nn.Module) -> set[int]:
    """The ids of those parameters that autocast would make bfloat16 each time that they are read: linear layers' alone."""
    linear, elsewhere = set[int](), set[int]()
    for module in model.modules():
        (linear if is_linear(module) else elsewhere).update(id(p) for p in module.parameters(recurse=False))
    return linear - elsewhere
