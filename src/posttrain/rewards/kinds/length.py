"""Rewards of a completion's length in tokens, its end included, and the surrogate made of format and length."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.kinds.form import Form, in_form

Shape = Literal["quadratic", "polyline"]


def length_score(tokens: int, *, max_length: int, peak: float, shape: Shape) -> float:
    """A reward that rises to 1 at `peak` and falls to -1 at `max_length` (arXiv:2505.19439, eq. 2 to 4).

    With x = L / L_max:

    quadratic    1 - (1 - x/p)²  up to p,   1 - 2 ((x - p)/(1 - p))²  from there
    polyline     x/p             up to p,   1 - 2 (x - p)/(1 - p)     from there
    """
    x = min(tokens / max_length, 1.0)
    if shape == "quadratic":
        return 1 - (1 - x / peak) ** 2 if x <= peak else 1 - 2 * ((x - peak) / (1 - peak)) ** 2
    return x / peak if x <= peak else 1 - 2 * (x - peak) / (1 - peak)


class Length:
    """`length_score` of every completion."""

    name = "length"
    columns = ()

    def __init__(self, *, max_length: int, peak: float = 0.5, shape: Shape = "quadratic") -> None:
        self._max_length, self._peak = max_length, peak
        self._shape: Shape = shape

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [Judgement(self.score(len(tokens))) for tokens in group.tokens]

    def score(self, tokens: int) -> float:
        """Of a completion of that many tokens."""
        return length_score(tokens, max_length=self._max_length, peak=self._peak, shape=self._shape)

    def close(self) -> None:
        """Nothing was started."""


class FormatAndLength:
    """The surrogate of arXiv:2505.19439, which needs no label (eq. 5).

    With R_l the score of length:

    R = format_weight + R_l  in the right format,   min(0, R_l)  otherwise

    Args:
        form: the format.
        length: the score of length.
        format_weight: 1 in the paper; 0.5 in its code.
    """

    name = "format_length"
    columns = ()

    def __init__(self, form: Form, length: Length, *, format_weight: float = 1.0) -> None:
        self._form, self._length, self._format_weight = form, length, format_weight

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [self._one(text, len(tokens)) for text, tokens in zip(group.completions, group.tokens, strict=True)]

    def _one(self, completion: str, tokens: int) -> Judgement:
        form, length = in_form(self._form, completion), self._length.score(tokens)
        if form.score is None:
            return form
        return Judgement(self._format_weight + length if form.score else min(0.0, length), answer=form.answer)

    def close(self) -> None:
        """See `Form`."""
        self._form.close()


class Overlong:
    """DAPO's soft punishment of long completions (arXiv:2503.14476, eq. 13).

    0  up to L_max - C tokens,   ((L_max - C) - L) / C  from there,   -1  over L_max
    """

    name = "overlong"
    columns = ()

    def __init__(self, *, max_length: int, cache: int) -> None:
        self._max_length, self._cache = max_length, cache

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        free = self._max_length - self._cache
        return [Judgement(max(-1.0, min(0.0, (free - len(tokens)) / self._cache))) for tokens in group.tokens]

    def close(self) -> None:
        """Nothing was started."""
