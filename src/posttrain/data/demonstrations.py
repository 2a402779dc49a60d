"""The demonstration that a question brings with it, as the tokens of an answer to it, whether it is a right one, and
what answers are compared with.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from posttrain.data.columns import is_number, steps_of
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.encoding.prompts import Notes
from posttrain.data.rows import BadRow, DataReport, LongRow, Problem
from posttrain.errors import DataError

Faults = Callable[[Sequence[Problem]], Sequence[str | None]]
"""Why the demonstration of each of some questions is not right, or None where it is."""


def read_demonstration(
    encoder: Encoder,
    columns: Mapping[str, Any],
    prompt: Sequence[int],
    *,
    names: Sequence[str],
    max_tokens: int,
    on_long: Literal["skip", "raise", "cut"],
) -> tuple[tuple[int, ...] | None, tuple[int, ...], Notes]:
    """The tokens that answer `prompt`, from the first of these columns that is there, of `messages` the last, if it is an
    assistant's; or None. After how many of them another step begins, where `demonstration` is a list of steps. A question
    whose demonstration cannot be used stays a question, with a note.

    Args:
        encoder: of prompt and completion.
        columns: of the question.
        prompt: its tokens.
        names: the columns.
        max_tokens: of an answer.
        on_long: what becomes of a longer one: nothing, an error, or its first `max_tokens`.

    Raises:
        LongRow: it is too long, and that is to be an error.
    """
    texts = (_last(columns.get(name)) if name == "messages" else columns.get(name) for name in names)
    given = next((text for text in texts if text is not None), None)
    if given is None:
        return None, (), [("no_demonstration", "it has no demonstration")]
    steps = steps_of(given) if given is columns.get("demonstration") else []
    try:
        row, notes = encoder.demonstration({**_without_messages(columns), "completion": "".join(steps) or given})
    except LongRow as long:
        if long.refused:
            raise
        return None, (), [("long_demonstration", f"its demonstration is not used: {long}")]
    except BadRow as bad:
        return None, (), [("bad_demonstration", f"its demonstration is not used: {bad}")]
    tokens = tuple(row.completion.tolist())
    if row.prompt.tolist() != list(prompt) or not row.mask.all():
        reason = "its demonstration is not used: it is no single answer to the prompt"
        return None, (), [*notes, ("bad_demonstration", reason)]
    cuts = encoder.step_ends(tokens, steps) if steps else ()
    if cuts is None:
        notes = [*notes, ("unplaced_steps", "its demonstration is cut by its tokens: its steps cannot be found among them")]
    if len(tokens) <= max_tokens:
        return tokens, cuts or (), notes
    reason = f"it has {len(tokens)} tokens, over the {max_tokens} of an answer"
    if on_long == "cut":
        kept = tuple(cut for cut in cuts or () if cut < max_tokens)
        return tokens[:max_tokens], kept, [("cut_demonstration", f"its demonstration was cut: {reason}"), *notes]
    if on_long == "raise":
        raise LongRow("long_completion", f"the demonstration is too long: {reason}", refused=True)
    return None, (), [("long_demonstration", f"its demonstration is not used: {reason}"), *notes]


def only_right(
    problems: Sequence[Problem], report: DataReport, faults: Faults | None, *, on_wrong: Literal["skip", "keep", "raise"]
) -> list[Problem]:
    """The questions, without demonstrations that are not right; each is noted in the report.

    Args:
        problems: some of them with demonstrations.
        report: takes the notes.
        faults: says which are not right; None checks nothing.
        on_wrong: what becomes of them.

    Raises:
        DataError: one is wrong, and that is to be an error; or none is left.
    """
    checked = list(problems)
    if faults is None or on_wrong == "keep":
        return checked
    shown = [i for i, problem in enumerate(problems) if problem.demonstration is not None]
    for i, fault in zip(shown, faults([problems[i] for i in shown]), strict=True):
        if fault is None:
            continue
        where = problems[i].where
        if on_wrong == "raise":
            raise DataError(f"{where}: its demonstration {fault}. Mend it, or set data.on_wrong_demonstration: skip.")
        report.note(where, f"its demonstration is not used: it {fault}", "wrong_demonstration")
        checked[i] = dataclasses.replace(problems[i], demonstration=None, cuts=())
    if all(problem.demonstration is None for problem in checked):
        raise DataError(
            f"No demonstration can be used; the last: {report.notes[-1][1]}: {report.notes[-1][2]}. See the rewards and the "
            "column of answers, or set data.on_wrong_demonstration: keep."
        )
    return checked


def _last(messages: Any) -> str | None:
    last = messages[-1] if isinstance(messages, (list, tuple)) and messages else None
    return last.get("content") if isinstance(last, dict) and last.get("role") == "assistant" else None


def _without_messages(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if name != "messages"}


def reference_of(columns: Mapping[str, Any]) -> str:
    """The reference as text: text, a finite number, or a list of one of these; or calls of tools as JSON text.

    Raises:
        BadRow: there is none.
    """
    named = next((name for name in ("answer", "solution", "calls") if columns.get(name) is not None), None)
    reference = None if named is None else columns[named]
    if named == "calls" and not isinstance(reference, str):
        return json.dumps(reference, ensure_ascii=False)
    if isinstance(reference, (list, tuple)):
        if len(reference) != 1:
            raise BadRow(f"answer lists {len(reference)} values, and answers are compared with one")
        reference = reference[0]
    if is_number(reference) and math.isfinite(reference):
        return str(reference)
    if not isinstance(reference, str):
        raise BadRow(f"answer must be text or a number, not {reference!r:.40}")
    if not reference.strip():
        raise BadRow("answer is empty")
    return reference
