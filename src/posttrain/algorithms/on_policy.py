"""Parts that the algorithms over rollouts share: the correction, a KL term in the loss, an entropy bonus."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from posttrain.algorithms.base import Correction
    from posttrain.estimator import Part, Penalty, Term
    from posttrain.parts.average import Average


def correction_part(config: Correction | None) -> Part:
    """The correction that a config names."""
    from posttrain.parts import correction

    if config is None:
        return correction.none
    form = {"truncate": correction.truncate, "mask": correction.mask}[config.form]
    level = {"token": correction.token, "sequence": correction.sequence, "geometric": correction.geometric}
    return partial(form, level=level[config.level], cap=config.cap)


def is_sequence_level(config: Correction | None) -> bool:
    """Whether the correction looks at whole rows."""
    return config is not None and config.level != "token"


def kl_terms(coef: float, estimate: Literal["k2", "k3"], per: Average) -> tuple[Term, ...]:
    """coef · KL(pi || ref) in the loss, averaged like the policy's own term."""
    from posttrain.estimator import Estimator, Term
    from posttrain.parts import advantage, denominator

    if not coef:
        return ()
    pull = {"k2": advantage.k2, "k3": advantage.k3}[estimate]
    return (
        Term(
            name="kl",
            estimator=Estimator(denominator=denominator.current, advantage=pull),
            average=per,
            coef=coef,
        ),
    )


def entropy_penalties(coef: float) -> tuple[Penalty, ...]:
    """A bonus of coef · the mean entropy of the policy over the loss tokens."""
    from posttrain.estimator import Penalty

    return (Penalty(name="entropy", quantity="entropy", coef=-coef),) if coef else ()
