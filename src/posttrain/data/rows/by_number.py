"""Examples that are made, or looked up, when they are asked for by their number."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import overload

from posttrain.data.rows import Example


class ByNumber(Sequence[Example]):
    """A sequence whose class says how many there are, and which is at a place."""

    @abstractmethod
    def at(self, place: int) -> Example:
        """The example at a place from 0 on, which is there."""

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"{index} of {len(self)} examples")
        return self.at(place)
