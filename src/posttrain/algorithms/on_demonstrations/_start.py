"""What holds a policy to the start model over the whole vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.estimator import Penalty, Select


def kl_to_start(coef: float, select: Select | None = None) -> tuple[Penalty, ...]:
    """coef · the mean of KL(pi_start || pi_theta) over the tokens that carry loss, or those that are selected."""
    from posttrain.estimator import Penalty
    from posttrain.estimator.parts.select import everything

    return (Penalty(name="kl/start", quantity="kl", coef=coef, select=select or everything),) if coef else ()
