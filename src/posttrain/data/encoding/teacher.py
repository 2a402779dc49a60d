"""What a teacher is asked in place of a row's prompt: more than the student is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

from posttrain.data.answers import is_conversation
from posttrain.data.columns import names_of, steps_of
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.encoding.prompts import Notes, Prompts
from posttrain.data.rows import BadRow, LongRow
from posttrain.data.sources.record import Record
from posttrain.estimator.needs import Needs
from posttrain.settings.base import RIGHT
from posttrain.settings.data import Encoding

KEY = "the teacher's template"


@dataclass(frozen=True, slots=True)
class Asked:
    """How a teacher is asked: by a template of columns, or as the student is. It reads `context` tokens at most, where
    that is known.

    With `shows_right` the template's `right` is no column, but another right answer to the question, once there is one.
    """

    template: str = ""
    context: int | None = None
    shows_right: bool = False

    @property
    def bound(self) -> int | None:
        """Tokens of the student's row, at most, where the teacher reads that one."""
        return None if self.template else self.context

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that it names beside the prompt."""
        others = ("prompt", *([RIGHT] if self.shows_right else []))
        return tuple(name for name in dict.fromkeys(names_of(self.template)) if name not in others)

    def shown(self, record: Record, *, trained: bool) -> Record:
        """The record with its completion as its demonstration, where the template names that and it has none of its own; it
        stays a completion where that is `trained`.
        """
        given: Any = record.columns.get("completion")
        if "demonstration" not in self.columns or record.columns.get("demonstration") is not None or given is None:
            return record
        if is_conversation(given):
            given = given[-1].get("content")
        others = {name: value for name, value in record.columns.items() if trained or name != "completion"}
        return replace(record, columns={**others, "demonstration": given})


def asked_by(needs: Needs, context: int | None) -> Asked | None:
    """How an algorithm's teacher, of that context, is asked; None where there is none."""
    return Asked(needs.teacher_template, context, needs.shows_right) if needs.teacher != "none" else None


@dataclass(frozen=True, slots=True)
class AskedLater:
    """How a teacher is asked that is shown what is sampled: what `TeacherPrompts` takes, but for the tokenizer."""

    asked: Asked
    encoding: Encoding
    ends: tuple[int, ...]

    def prompts(self, tokenizer: Any) -> TeacherPrompts:
        """What writes its prompts."""
        return TeacherPrompts(self.asked, tokenizer, self.encoding, self.ends)


class TeacherPrompts:
    """Encodes what a teacher is asked, as the student's prompts are encoded but for their template and limits.

    Args:
        asked: how it is asked.
        tokenizer: of transformers.
        config: of the student's prompts.
        ends: every token that ends an answer.
    """

    def __init__(self, asked: Asked, tokenizer: Any, config: Encoding, ends: Sequence[int]) -> None:
        self._asked, self._prompts = asked, Prompts(asked.template, KEY)
        self._refuses = config.on_long_prompt == "raise"
        written = {"prompt_template": "{prompt}", "max_prompt_tokens": None, "max_tokens": None, "on_long_prompt": "skip"}
        self._encoder = Encoder(tokenizer, config.model_copy(update=written), ends)

    def ids(self, columns: Mapping[str, Any], *, answer: int) -> tuple[list[int], Notes]:
        """The teacher's prompt, after which an answer of so many tokens follows.

        Raises:
            BadRow: as in `prompt`.
            LongRow: the teacher cannot read so much.
        """
        prompt, notes = self.prompt(columns)
        self.check(prompt, answer)
        return prompt, notes

    def prompt(self, columns: Mapping[str, Any], right: str = "") -> tuple[list[int], Notes]:
        """The teacher's prompt, however long. Of a conversation the template is given its last turn, of the user, and takes
        its place; a demonstration that is a list of steps is joined. `right` is another right answer, where the teacher is
        shown one.

        Raises:
            BadRow: a column of the template is missing, empty, or neither text nor a number.
        """
        if steps := steps_of(columns.get("demonstration")):
            columns = {**columns, "demonstration": "".join(steps)}
        if self._asked.shows_right:
            columns = {**columns, RIGHT: right}
        for name in self._asked.columns:
            if name in columns and columns[name] in (None, ""):
                raise BadRow(f"{KEY} names {name}, which is empty here")
        written = self._written(columns)
        try:
            return self._encoder.prompt({**columns, "prompt": written})
        except BadRow as bad:
            raise BadRow(f"as the teacher is asked, {bad}") from None

    def check(self, prompt: Sized, answer: int) -> None:
        """That the teacher can read its prompt and an answer of so many tokens.

        Raises:
            LongRow: it cannot.
        """
        read, most = len(prompt) + answer, self._asked.context
        if most is not None and read > most:
            reason = f"the teacher would read {read} tokens, its prompt of {len(prompt)} and an answer, and knows {most}"
            raise LongRow("long_prompt", reason, refused=self._refuses)

    def _written(self, columns: Mapping[str, Any]) -> Any:
        prompt = columns.get("prompt")
        if prompt is None and columns.get("messages") is not None:
            raise BadRow(f"{KEY} is of a prompt, and the row is a conversation: give prompt and completion")
        if not isinstance(prompt, (list, tuple)):
            return self._prompts.text(columns)
        last: Any = prompt[-1] if prompt else None
        if not isinstance(last, dict) or last.get("role") != "user":
            raise BadRow(f"{KEY} takes the place of the user's last turn, and the prompt does not end with one")
        return [*prompt[:-1], {**last, "content": self._prompts.text({**columns, "prompt": last.get("content")})}]
