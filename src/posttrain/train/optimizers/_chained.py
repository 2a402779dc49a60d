"""Several optimizers, each of parameters of its own, as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.optim import Optimizer


class Chained(Optimizer):
    """Its groups are those of all of them, in their order, and so is its state."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._counts = [len(one.param_groups) for one in optimizers]
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self._share()

    def _share(self) -> None:
        """The groups and the state are the same objects in all of them."""
        begin = 0
        for one, count in zip(self._optimizers, self._counts, strict=True):
            one.param_groups = self.param_groups[begin : begin + count]
            one.state = self.state
            begin += count

    def load_state_dict(self, state_dict: Any) -> None:
        """See torch."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """All of them, in their order."""
        loss = None if closure is None else closure()
        for one in self._optimizers:
            one.step()
        return loss
