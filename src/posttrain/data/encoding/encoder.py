"""Columns of a record → token ids with a loss mask. Training and sampling see the same prompt, for there is one way to it.

Prompt and completion are joined as ids: no token ever spans the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import combinations, cycle, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.data.encoding.chat import Chat
from posttrain.data.encoding.lengths import Lengths
from posttrain.data.encoding.plain import Plain
from posttrain.data.encoding.prompts import Notes
from posttrain.data.encoding.template import Template
from posttrain.data.encoding.text import Text
from posttrain.data.encoding.turns import Draft
from posttrain.data.encoding.windows import Windows
from posttrain.data.rows import BadRow, LongRow, Row, Weigh
from posttrain.data.spans import step_ends
from posttrain.errors import DataError, SetupError
from posttrain.estimator.needs import CROSSED
from posttrain.settings.data import Encoding
from posttrain.telling import tell


class Encoder:
    """Columns of a record → `Row`, after the recipe's templates and length limits.

    Args:
        tokenizer: of transformers.
        config: templates, limits and policies.
        eos_ids: every token that ends an answer, the generation config's among them; one is appended where a completion has
            none: what the chat template ends turns with, or else the first.
        limit: the maximal length of who reads the rows.
        reader: whose that is, in words.
    """

    def __init__(
        self,
        tokenizer: Any,
        config: Encoding,
        eos_ids: Sequence[int],
        limit: int | None = None,
        reader: str = "the model",
    ) -> None:
        if not eos_ids:
            raise SetupError("The tokenizer and the model name no end-of-sequence token: answers could never end.")
        self._lengths, self._tokenizer, self._config = Lengths(config, limit, reader), tokenizer, config
        self._eos = [*eos_ids]
        limits = ((config.max_tokens, "data.max_tokens"), (limit, f"{reader}'s own length"))
        self._limits = [(length, whose) for length, whose in limits if length is not None]
        self._chat: Chat | None = None
        if not config.chat_template or not tokenizer.chat_template:
            self._path: Chat | Plain = Plain(Text(tokenizer, eos_ids), config, self._lengths)
            self._ends = [*eos_ids]
            return
        template = Template(tokenizer, config.chat_template_kwargs, config.date)
        if template.writes_date:
            tell("date", f"The chat template writes the date: {template.day}, in all of this run (data.date).")
        end = template.end_of_turn(eos_ids)
        self._ends = ends = [*eos_ids, *([] if end is None or end in eos_ids else [end])]
        self._chat = Chat(template, Text(tokenizer, ends), ends[0] if end is None else end, config, self._lengths)
        self._path = self._chat

    def prompt(self, columns: Mapping[str, Any]) -> tuple[list[int], Notes]:
        """The prompt as the model is asked it, and what was cut.

        Raises:
            BadRow: a column is missing or of the wrong type, or the prompt is too long.
        """
        self._check_template()
        prompt, notes = self._path.prompt(columns)
        if not prompt:
            raise BadRow("the prompt is empty")
        self._lengths.check_prompt(prompt)
        return prompt, notes

    def demonstrations(self, columns: Mapping[str, Any], weigh: Weigh | None = None) -> tuple[list[Row], Notes]:
        """The rows of `prompt` and `completion`, or of `messages`, and what was cut or left out.

        A conversation is one row where the template writes its history as it wrote the answers, and else one for each turn.
        `weigh` makes what its tokens are worth.

        Raises:
            BadRow: as in `prompt`; the completion is empty, or nothing carries loss.
        """
        return self._rows(columns, "completion" if columns.get("messages") is None else "messages", weigh)

    def text(self, columns: Mapping[str, Any], weigh: Weigh | None = None) -> tuple[list[Row], Notes]:
        """The rows of a `text`, without any template: as many as it has windows.

        Raises:
            BadRow: it is no text, or empty.
            DataError: the windows do not fit the model.
        """
        ids, lead, notes = self._windows.ids(columns)
        read = self._windows.corrupted(columns, ids, lead)
        worth = None if weigh is None else np.concatenate([np.ones(lead, np.float32), weigh(ids[lead:], self._eos)])
        rows = list[Row]()
        for begin, learnt, end in self._windows.over(len(ids), lead):
            mask = np.arange(begin, end) >= learnt
            weight = None if worth is None else worth[begin:end]
            inputs = None if read is None else np.array(read[begin:end], np.int32)
            rows.append(Row(np.array([], np.int32), np.array(ids[begin:end], np.int32), mask, weight, inputs=inputs))
        return rows, notes

    @cached_property
    def _windows(self) -> Windows:
        eos = self._tokenizer.eos_token_id
        end = eos if eos in self._eos else self._eos[0]
        return Windows(Text(self._tokenizer, self._eos), end, self._config, min(self._limits, default=None))

    def _check_template(self) -> None:
        if self._config.chat_template and self._chat is None:
            raise DataError(
                "The tokenizer has no chat template. Join plain text: data.chat_template: false, or for posttrain eval "
                "--no-chat-template."
            )

    def demonstration(self, columns: Mapping[str, Any]) -> tuple[Row, Notes]:
        """The same where it is one row.

        Raises:
            BadRow: as in `demonstrations`, or there are several.
        """
        rows, notes = self.demonstrations(columns)
        return _one(rows), notes

    def step_ends(self, tokens: Sequence[int], steps: Sequence[str]) -> tuple[int, ...] | None:
        """After how many tokens of a demonstration another of its steps begins, where that is known."""
        return step_ends(self._tokenizer, tokens, self._ends, steps)

    def preference(self, columns: Mapping[str, Any], sides: Sequence[str]) -> tuple[tuple[Row, ...], Notes]:
        """The rows of the columns `sides`, the chosen and the rejected one first, and what was cut.

        Conversations that hold their prompt, whether there is a `prompt` column or not, are split where the first two begin
        to differ.

        Raises:
            BadRow: as in `prompt`, or the two completions are equal.
        """
        self._check_template()
        holding = [side for side in sides if _holds_prompt(columns.get(side))]
        if columns.get("prompt") is None or len(holding) == len(sides):
            if self._chat is None:
                raise BadRow(f"{' and '.join(sides)} need a prompt, of text where chat_template is false")
            columns = self._chat.common_prompt(columns, sides)
        elif holding:
            others = " and ".join(side for side in sides if side not in holding)
            raise BadRow(
                f"beside its prompt, {' and '.join(holding)} hold it as well, and {others} not: all of them, or none"
            )
        read = [self._rows(columns, side) for side in sides]
        rows, notes = tuple(_one(rows) for rows, _ in read), [note for _, notes in read for note in notes]
        if np.array_equal(rows[0].completion, rows[1].completion):
            cut = any(counter == "cut_completion" for counter, _ in read[0][1] + read[1][1])
            raise BadRow(f"chosen and rejected are equal{' once they are cut to max_tokens' if cut else ''}")
        return rows, notes

    def crossed(self, columns: Mapping[str, Any], number: int) -> tuple[tuple[Row, ...], Notes]:
        """The rows of each of `completions` under each of `prompts`, so many of both, by prompts; and what was cut, of a
        completion under all of its prompts alike.

        Raises:
            BadRow: as in `prompt`; they are no such lists, or two prompts, or two completions, are equal.
        """
        prompts, completions = (_listed(columns.get(name), name, number) for name in CROSSED)
        rows, notes = list[Row](), Notes()
        for (i, prompt), (j, completion) in product(enumerate(prompts, 1), enumerate(completions, 1)):
            with _naming(f"prompt {i} with completion {j}"):
                read, more = self._rows({**columns, "prompt": prompt, "completion": completion}, "completion")
                rows.append(_one(read))
            notes = notes + more
        cut = {counter for counter, _ in notes}
        if "cut_completion" in cut:
            least = [min(len(row.completion) for row in rows[j::number]) for j in range(number)]
            rows = [replace(row, completion=row.completion[:n], mask=row.mask[:n]) for row, n in zip(rows, cycle(least))]
        _check_apart("prompts", [row.prompt for row in rows[::number]], "cut_prompt" in cut)
        _check_apart("completions", [row.completion for row in rows[:number]], "cut_completion" in cut)
        return tuple(rows), notes

    def _rows(self, columns: Mapping[str, Any], column: str, weigh: Weigh | None = None) -> tuple[list[Row], Notes]:
        self._check_template()
        drafts, notes = self._path.drafts(columns, column)
        rows, long = list[Row](), list[LongRow]()
        for draft in drafts:
            try:
                row, more = self._row(draft, weigh)
            except LongRow as error:
                if error.refused or len(drafts) == 1:
                    raise
                long.append(error)
                continue
            rows.append(row)
            notes = notes + more
        if not rows:
            raise long[0]
        return rows, notes + [(error.counter, str(error)) for error in long]

    def _row(self, draft: Draft, weigh: Weigh | None) -> tuple[Row, Notes]:
        ids, mask = draft.completion, draft.mask
        if not draft.prompt:
            mask[0] = False  # nothing comes before it that could predict it
            if not any(mask):
                raise BadRow("no token that carries loss has anything before it")
        self._lengths.check_prompt(draft.prompt)
        kept, notes = self._lengths.fit_completion(len(draft.prompt), ids, mask)
        worth = None if weigh is None else weigh(ids, self._ends)[:kept]
        arrays = (np.array(draft.prompt, np.int32), np.array(ids[:kept], np.int32), np.array(mask[:kept], np.bool_))
        return Row(*arrays, worth), notes


def _listed(value: Any, name: str, number: int) -> list[Any]:
    if not isinstance(value, (list, tuple)) or any(isinstance(one, dict) for one in value):
        raise BadRow(f"{name} must be a list of {number}, each text or a list of messages")
    if len(value) != number:
        raise BadRow(f"{name} lists {len(value)}, and {number} are asked for: as many prompts as completions, in all rows")
    return list(value)


def _check_apart(name: str, all_of: Sequence[NDArray[np.int32]], cut: bool) -> None:
    for (i, one), (j, other) in combinations(enumerate(all_of, 1), 2):
        if np.array_equal(one, other):
            raise BadRow(f"{name} {i} and {j} are equal{' once they are cut' if cut else ''}: nothing tells them apart")


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """What is said of a row begins with the place that it has in its unit."""
    try:
        yield
    except LongRow as long:
        raise LongRow(long.counter, f"{place}: {long}", refused=long.refused) from None
    except BadRow as bad:
        raise BadRow(f"{place}: {bad}") from None


def _one(rows: list[Row]) -> Row:
    if len(rows) > 1:
        raise BadRow("the chat template rewrites earlier turns, so that its answers are no single row; give the last alone")
    return rows[0]


def _holds_prompt(conversation: Any) -> bool:
    first = conversation[0] if isinstance(conversation, (list, tuple)) and conversation else None
    return isinstance(first, dict) and first.get("role") != "assistant"
