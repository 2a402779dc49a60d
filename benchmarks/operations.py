"""What a step dispatches: each operation that is neither a view nor empty memory would be a kernel on a GPU, and is counted
on a CPU too. It is not the same there: a CPU takes attention block by block where a GPU takes one call for all lengths.
"""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

NO_KERNEL = {
    "detach",
    "alias",
    "_unsafe_view",
    "_local_scalar_dense",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
}


class Operations(TorchDispatchMode):
    """Counts what is dispatched while it lasts, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Counts one and calls it."""
        self.count += not func.is_view and func._schema.name.removeprefix("aten::") not in NO_KERNEL
        return func(*args, **(kwargs or {}))
