"""What the name of an evaluation's metric says: whether people are shown it, and whether less is better. No torch here."""

from __future__ import annotations

import re

LOWER_IS_BETTER = re.compile(r"^(loss|nll|objective|kl|length|cut_off|unparsable|failed_grades)(/|$)")
"""Of a metric of an evaluation, without the name of its set."""
SHOWN = (
    r"pass@\d+",
    r"majority@\d+",
    r"preference/accuracy",
    r"principles/accuracy",
    r"loss",
    r"nll",
    r"objective/.+",
    "length",
    "cut_off",
    "unparsable",
)
"""Metrics of an evaluation set that people are shown, on a page or a screen, in this order."""


def place_of(name: str) -> int | None:
    """Of a metric in a table, or None where it is not shown."""
    kind, _, rest = name.partition("/")
    _, _, metric = rest.partition("/")
    found = (place for place, pattern in enumerate(SHOWN) if re.fullmatch(pattern, metric))
    return next(found, None) if kind == "eval" else None
