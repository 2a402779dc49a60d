"""Parameters whose names fit a pattern are trained, and the others stay as they are."""

from __future__ import annotations

import re
from typing import Literal

from posttrain.settings.base import Pattern
from posttrain.train.updates.trainable._trainable import Shapes, TrainableConfig


class Match(TrainableConfig):
    """Parameters whose names fit a pattern are trained."""

    rule: Literal["match"] = "match"
    pattern: Pattern
    """A regular expression that is looked for in a parameter's name: "mlp|norm", or "layers\\\\.(2|3)\\\\."."""

    def chosen(self, shapes: Shapes, seed: int, step: int) -> set[str]:
        """Those that it is found in."""
        found = {name for name in shapes if re.search(self.pattern, name)}
        if not found:
            some = ", ".join(list(shapes)[:3])
            raise ValueError(f"pattern: {self.pattern} is found in no parameter; they are called {some}, …")
        return found
