"""Format and length together, the surrogate that needs no label (arXiv:2505.19439)."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.kinds._form import Form, OfForm, in_form
from posttrain.rewards.kinds._length import Length, OfLength
from posttrain.rewards.options import Judged
from posttrain.settings.base import Positive


class FormatLengthReward(OfForm, OfLength):
    """Format and length together, the surrogate that needs no label."""

    name: Literal["format_length"] = "format_length"
    format_weight: Positive = 1.0
    """1 in the paper, 0.5 in its code."""

    def build(self, judged: Judged) -> FormatAndLength:
        """With the form's reader."""
        length = self.made_length(judged.max_tokens)
        return FormatAndLength(self.made_form(), length, format_weight=self.format_weight, special_tokens=self.special_tokens)


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

    def __init__(self, form: Form, length: Length, *, format_weight: float = 1.0, special_tokens: bool = False) -> None:
        self._form, self._length, self._format_weight = form, length, format_weight
        self._special_tokens = special_tokens

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        texts = group.texts(special_tokens=self._special_tokens)
        return [self._one(text, len(tokens)) for text, tokens in zip(texts, group.tokens, strict=True)]

    def _one(self, completion: str, tokens: int) -> Judgement:
        form, length = in_form(self._form, completion), self._length.score(tokens)
        if form.score is None:
            return form
        return Judgement(self._format_weight + length if form.score else min(0.0, length), answer=form.answer)

    def close(self) -> None:
        """See `Form`."""
        self._form.close()
