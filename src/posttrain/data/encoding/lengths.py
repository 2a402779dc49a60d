"""Length limits of rows, and what becomes of rows over them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from posttrain.data.encoding.prompts import Notes
from posttrain.data.rows import BadRow, LongRow
from posttrain.settings.data import Encoding


class Lengths:
    """The limits of a recipe.

    Args:
        config: limits and policies.
        limit: the maximal length of who reads them.
        reader: whose that is, in words.
    """

    def __init__(self, config: Encoding, limit: int | None, reader: str) -> None:
        given = {"data.max_tokens": config.max_tokens, f"{reader}'s own length": limit}
        limits = [(length, name) for name, length in given.items() if length is not None]
        self._config, (self._whole, self._whole_by) = config, min(limits, default=(None, ""))
        self._prompt, self._prompt_by = config.max_prompt_tokens, "data.max_prompt_tokens"
        if self._whole is not None and (self._prompt is None or self._prompt >= self._whole):
            self._prompt, self._prompt_by = self._whole - 1, f"{self._whole_by}, less one for the answer"
        self.cuts_prompts = config.on_long_prompt == "keep_end"

    def too_long(self, prompt: list[int]) -> bool:
        """Whether a prompt is over its limit."""
        return self._prompt is not None and len(prompt) > self._prompt

    def check_prompt(self, prompt: list[int]) -> None:
        """That a prompt is within its limit.

        Raises:
            LongRow: it is not.
        """
        if self.too_long(prompt):
            frame = ", without any of its text" if self.cuts_prompts else ""
            reason = f"the prompt has {len(prompt)} tokens{frame}, over the limit of {self._prompt} ({self._prompt_by})"
            raise LongRow("long_prompt", reason, refused=self._config.on_long_prompt == "raise")

    def cut_text(self, text: str, prompt_with: Callable[[str], list[int]]) -> str:
        """The longest end of a text with which a prompt is within its limit; empty where there is none."""
        start = bisect_left(range(len(text)), True, key=lambda at: not self.too_long(prompt_with(text[at:])))
        return text[start:]

    def fit_completion(self, prompt: int, ids: list[int], mask: list[bool]) -> tuple[int, Notes]:
        """How many of the completion's tokens stay, after a prompt of so many tokens.

        Raises:
            LongRow: it is too long and may not be cut.
            BadRow: nothing that carries loss is left.
        """
        if self._whole is None or prompt + len(ids) <= self._whole:
            return len(ids), []
        room = self._whole - prompt
        if self._config.on_long_completion == "cut":
            if not any(mask[:room]):
                raise BadRow("no token that carries loss is left after the cut")
            return room, [("cut_completion", f"the completion was cut from {len(ids)} to {room} tokens")]
        reason = f"prompt and completion have {prompt + len(ids)} tokens, over the limit of {self._whole} ({self._whole_by})"
        raise LongRow("long_completion", reason, refused=self._config.on_long_completion == "raise")
