"""One number for a whole step, which losses of labelled completions stand their rows against."""

from posttrain.estimator.needs import Needs, RunningMean
from posttrain.train.anchor.anchor import Anchor
from posttrain.train.anchor.mismatched import MismatchedAnchor
from posttrain.train.anchor.running import RunningAnchor


def make_anchor(needs: Needs) -> Anchor | None:
    """As `Needs.anchor` has it."""
    if isinstance(needs.anchor, RunningMean):
        return RunningAnchor(needs.anchor.decay)
    return MismatchedAnchor() if needs.anchor == "mismatched" else None


__all__ = ["Anchor", "make_anchor"]
