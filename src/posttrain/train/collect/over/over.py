"""What collectors over another one have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posttrain.train.collect.collection import NOTHING, Collection, Collector


class Over:
    """Remembers what the other one does, and nothing of its own.

    Args:
        inner: collects what this one makes something of.
    """

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def state(self) -> dict[str, Any]:
        """See `Collector`."""
        return self._inner.state()

    def ahead(self, step: int) -> dict[int, Collection]:
        """See `Collector`: as the inner one made them."""
        return self._inner.ahead(step)

    def kept(self) -> Collection | None:
        """See `Collector`."""
        return self._inner.kept()

    def restore(
        self, state: Mapping[str, Any], ahead: Mapping[int, Collection] = NOTHING, kept: Collection | None = None
    ) -> None:
        """See `Collector`."""
        self._inner.restore(state, ahead, kept)
