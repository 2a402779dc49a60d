"""The power scheduler (arXiv:2408.13359): a rate that falls with a power of the tokens that were seen.

rate(n) = min(learning_rate, batch · a · n^b),   n = step · tokens;   then an exponential decay in the last part,
which its authors' code (IBM/dolomite-engine) leaves to a later run
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from posttrain.settings.base import Count, Positive
from posttrain.train.schedules._schedule import Factor, ScheduleConfig


class Power(ScheduleConfig):
    """A power of the tokens seen, at most learning_rate, and an exponential decay at the end."""

    name: Literal["power"] = "power"
    a: Positive
    """The scale of the power law. The paper's 4.6 is for its parametrisation (muP), and for batch in its unit."""
    b: Annotated[float, Field(lt=0)]
    """The exponent. The paper's is -0.51."""
    batch: Positive
    """The size of a step's batch that a is multiplied with, in the unit in which a was found."""
    tokens: Count
    """Tokens of a step; the law's n is so many times the number of steps, whatever is measured."""
    decay: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The share of all steps in which the rate decays, the last ones."""
    min: Annotated[float, Field(gt=0, le=1)] = 0.01
    """The rate at the end of the decay, as a share of that at its beginning."""

    def build(self) -> Factor:
        """With a learning rate of 1."""
        return self.build_at(1.0)

    def build_at(self, learning_rate: float) -> Factor:
        """Linear warm-up to the law, the law, the decay."""
        if not learning_rate:
            raise ValueError("power is a rate of its own, and needs a learning_rate above 0 as its largest")

        def law(step: float) -> float:
            return min(1.0, self.batch * self.a * (step * self.tokens) ** self.b / learning_rate) if step else 1.0

        def factor(step: int, steps: int, warmup: int) -> float:
            if step < warmup:
                return law(warmup) * step / warmup
            begins = max(warmup, steps * (1 - self.decay))
            if step <= begins:
                return law(step)
            return law(begins) * self.min ** min((step - begins) / max(steps - begins, 1e-9), 1.0)

        return factor
