"""1 where a completion has the form that was asked for, else 0."""

from __future__ import annotations

from typing import Literal

from posttrain.rewards.base import Group, Judgement
from posttrain.rewards.kinds._form import Form, OfForm, in_form
from posttrain.rewards.options import Judged


class FormatReward(OfForm):
    """1 where a completion has the form."""

    name: Literal["format"] = "format"

    def build(self, judged: Judged) -> Format:
        """With the form's reader."""
        return Format(self.made_form(), special_tokens=self.special_tokens)


class Format:
    """1 where a completion has the form, else 0."""

    name = "format"
    columns = ()

    def __init__(self, form: Form, *, special_tokens: bool = False) -> None:
        self._form, self._special_tokens = form, special_tokens

    def judge(self, group: Group) -> list[Judgement]:
        """See `Reward`."""
        return [in_form(self._form, completion) for completion in group.texts(special_tokens=self._special_tokens)]

    def close(self) -> None:
        """See `Form`."""
        self._form.close()
