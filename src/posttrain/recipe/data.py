"""What a recipe says of its data, with what is done to their rows before they are encoded."""

from __future__ import annotations

from posttrain.data.transforms import AnyTransform
from posttrain.settings.data import DataConfig


class TransformedData(DataConfig):
    """Where the rows come from, what is made of them, and how they become tokens."""

    transforms: list[AnyTransform] = []
    """What is done to the columns of rows, in this order: names of `posttrain list transforms`, with their options."""
