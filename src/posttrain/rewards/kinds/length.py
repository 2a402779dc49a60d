"""A piecewise reward of length alone."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.kinds._length import Length, OfLength
from posttrain.rewards.options import Judged


class LengthReward(OfLength):
    """A piecewise reward of length."""

    name: Literal["length"] = "length"

    def build(self, judged: Judged) -> Length:
        """Up to the longest answer, where no length is given."""
        return self.made_length(judged.max_tokens)
