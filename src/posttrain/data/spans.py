"""Spans of characters, or steps, of a completion's text → its tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posttrain.data.rows import BadRow

Span = tuple[int, int, float]
"""From a character, to one before another, and the weight in between."""


def of_tokens(
    tokenizer: Any, ids: Sequence[int], ends: Collection[int], said: Any, spans: Sequence[Span]
) -> NDArray[np.float32]:
    """The weight of each token of a completion: that of the span it has a character of, the later one's of two; else 1.

    Args:
        tokenizer: of transformers.
        ids: of the completion, its end and what a template writes before the text included.
        ends: every token that ends an answer.
        said: the text that the spans count characters of, or a list of the one message that has it.
        spans: in any order; they may not overlap.

    Raises:
        BadRow: a span is outside the text, two overlap, or nobody knows where the tokens stand in it.
    """
    text = _text(said)
    spans = sorted(spans)
    for start, end, _ in spans:
        if not 0 <= start < end <= len(text):
            raise BadRow(f"weights: the span [{start}, {end}] is not in its completion of {len(text)} characters")
    for (_, end, _), (start, other, _) in pairwise(spans):
        if start < end:
            raise BadRow(f"weights: the span [{start}, {other}] overlaps the one before it")
    weights, placed = np.ones(len(ids), np.float32), _offsets(tokenizer, ids, ends, text)
    if placed is None:
        raise BadRow("weights: its tokens cannot be placed in its text; give a number for each token instead of spans")
    for place, (begins, stops) in enumerate(placed):
        for start, end, weight in spans:
            if begins < end and stops > start and begins < stops:
                weights[place] = weight
    return weights


def step_ends(tokenizer: Any, ids: Sequence[int], ends: Collection[int], steps: Sequence[str]) -> tuple[int, ...] | None:
    """After how many tokens of a completion, whose text is these steps, another step begins; None where its tokens cannot be
    placed in its text. A token of two steps is of the first of them.
    """
    placed = _offsets(tokenizer, ids, ends, "".join(steps))
    if placed is None:
        return None
    counted = {sum(begins < end for begins, _ in placed) for end in accumulate(len(step) for step in steps)}
    return tuple(sorted(counted - {0, len(placed)}))


def _text(said: Any) -> str:
    if isinstance(said, (list, tuple)) and len(said) == 1 and isinstance(said[0], dict):
        said = said[0].get("content")
    if not isinstance(said, str):
        raise BadRow("weights: spans are of a completion of text, or of one message")
    return said


def _offsets(tokenizer: Any, ids: Sequence[int], ends: Collection[int], text: str) -> list[tuple[int, int]] | None:
    """Where each token stands in the text, by the tokenizer's own offsets in what the tokens say; its end is not in it. None
    where nobody knows.
    """
    own = len(ids) - (ids[-1] in ends)
    decoded = tokenizer.decode(ids[:own], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    options = {"add_special_tokens": False, "verbose": False}
    again = tokenizer(decoded, **options, return_offsets_mapping=True) if tokenizer.is_fast else {"input_ids": []}
    lead, body = len(text) - len(text.lstrip()), text.strip()
    if list(again["input_ids"]) != list(ids[:own]) or not decoded.rstrip().endswith(body):
        return None
    before = len(decoded.rstrip()) - len(body) - lead
    return [(begins - before, stops - before) for begins, stops in again["offset_mapping"]]
