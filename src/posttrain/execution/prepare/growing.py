"""Texts in rows that grow in the course of a run (GrowLength, arXiv:2310.00576)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from posttrain.data.rows import Example, Problem, Row
from posttrain.errors import DataError
from posttrain.train.collect.order import Mixed, examples_of_epochs

DEALING = 2**62  # in place of a pass's number, in the key of the chance by which texts are dealt to lengths


def grown(
    texts: Sequence[Example] | Sequence[Problem], lengths: Sequence[int], epochs: float, seed: int
) -> tuple[list[Example], Mixed]:
    """The rows of each length, one after another, called by it, and how they are read: those of a length `epochs` times, then
    those of the next.

    The texts are dealt to the lengths at random, so that each has an equal share of the tokens, give or take a text; each is
    cut into rows of its length, of which two have a token in common, so that each token carries loss once.

    Raises:
        DataError: a row is no text, or there are fewer than lengths.
    """
    whole = [_text(one) for one in texts]
    drawn = np.random.Generator(np.random.Philox(key=[seed, DEALING])).permutation(len(whole))
    sizes = np.array([whole[place].tokens for place in drawn])
    shares = ((sizes.cumsum() - sizes / 2) * len(lengths) / sizes.sum()).astype(int)
    rows, counts = list[Example](), list[int]()
    for number, length in enumerate(lengths):
        dealt = sorted(drawn[shares == number].tolist())
        if not dealt:
            raise DataError(
                f"data.order: of {len(whole)} texts none is left for rows of {length} tokens: take a larger factor, or least."
            )
        of_length = [
            replace(whole[place], rows=(row,), source=str(length))
            for place in dealt
            for row in pieces(whole[place].rows[0], length)
        ]
        rows += of_length
        counts.append(len(of_length))
    ends = [examples_of_epochs(epochs, end) for end in np.cumsum(counts).tolist()]
    turns = [tuple(int(one == number) for one in range(len(lengths))) for number in range(len(lengths))]
    return rows, Mixed(tuple(map(str, lengths)), tuple(counts), tuple(zip(ends, turns, strict=True)))


def pieces(text: Row, length: int) -> Iterator[Row]:
    """A text in rows of at most so many tokens; the first of each is the last of the one before, and has no loss."""
    for begin in range(0, max(len(text.completion) - 1, 1), length - 1):
        part = slice(begin, begin + length)
        mask = text.mask[part].copy()
        mask[0] &= begin == 0
        if mask.any():
            weight = None if text.weight is None else text.weight[part]
            inputs = None if text.inputs is None else text.inputs[part]
            yield Row(text.prompt, text.completion[part], mask, weight, inputs=inputs)


def _text(one: Example | Problem) -> Example:
    if isinstance(one, Example) and len(one.rows) == 1 and not len(one.rows[0].prompt) and one.rows[0].teacher_prompt is None:
        return one
    raise DataError(f"{one.where}: data.order: growing cuts texts (a column text), and this row has a prompt.")


def told(mixed: Mixed, tokens: Sequence[int]) -> dict[str, str]:
    """A row of the plan: the lengths, with what is read of each."""
    ends, first = mixed.counts(mixed.phases[-1][0]), 0
    found = list[str]()
    for name, size, read in zip(mixed.names, mixed.sizes, ends, strict=True):
        found.append(f"{int(name):,}: {read:,} rows, {sum(tokens[first : first + size]) * read / size:,.0f} tokens")
        first += size
    return {"lengths of rows, one after another": "; ".join(found)}
