"""What demonstrations are worth, by their columns: numbers of rows and of tokens, and advantages made of rewards."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from posttrain.data.columns import KEY, number_of
from posttrain.data.rows import BadRow, Example, Row, Weigh
from posttrain.data.spans import of_tokens
from posttrain.errors import DataError
from posttrain.telling import tell

MOST = 9.0  # that a key token weighs
_KEYED = -1.0  # what no weight is
Worth = Literal["none", "weight", "reward", "advantage", "forget", "label"]
"""As `Needs.weight`."""
COLUMNS: Mapping[Worth, tuple[str, ...]] = {
    "none": (),
    "weight": ("weight", "weights"),
    "reward": ("reward",),
    "advantage": ("advantage", "reward", "value"),
    "forget": ("forget",),
    "label": ("label",),
}
"""What is read for each."""
ONE_OF: Mapping[Worth, tuple[str, ...]] = {
    "none": (),
    "weight": (),
    "reward": ("reward",),
    "advantage": ("advantage", "reward"),
    "forget": ("forget",),
    "label": ("label",),
}
"""Of which each row must have one."""


class Weigher:
    """Reads what the rows of one set are worth.

    Args:
        worth: of `Needs.weight`.
        tokenizer: of transformers; places spans of characters.
    """

    def __init__(self, worth: Worth, tokenizer: Any) -> None:
        self._worth: Worth = worth
        self._tokenizer, self._read = tokenizer, Counter[str]()

    def of(self, columns: Mapping[str, Any]) -> Weigh | None:
        """What makes numbers of a row's tokens; None where nothing is read.

        Raises:
            BadRow: a number is missing, or is none.
        """
        if self._worth == "none":
            return None
        if self._worth == "weight":
            return self._weight(columns)
        given = next((name for name in ONE_OF[self._worth] if columns.get(name) is not None), None)
        if given is None:
            raise BadRow(f"{' or '.join(ONE_OF[self._worth])} is missing")
        number = _NUMBERS.get(given, number_of)(columns[given], given)
        if given == "reward" and self._worth == "advantage" and columns.get("value") is not None:
            number, given = number - number_of(columns["value"], "value"), "reward and a value"
        elif given == "reward" and self._worth == "advantage" and columns.get("text") is not None:
            raise BadRow(
                "a text has no prompt whose mean reward its own could be held against: give an advantage, or a value"
            )
        self._read["label: false" if given == "label" and number < 0 else given] += 1
        return lambda ids, _: np.full(len(ids), number, np.float32)

    def settled(self, examples: list[Example], label: str) -> list[Example]:
        """The rows once all of the set are read: rewards alone become advantages, less the mean reward of the same prompt.

        Raises:
            DataError: no row had a weight, some had other columns than the rest, or each prompt stands in one row alone.
        """
        if self._worth == "weight" and not self._read:
            raise DataError(
                f"{label}: no row has a weight or weights, which the algorithm asks for. Name their column in the recipe: "
                "columns: {weight: <your column>}."
            )
        if self._worth == "label" and len(self._read) == 1:
            only = "true" if "label" in self._read else "false"
            tell("labels", f"{label}: every row is labelled {only}: nothing is learnt from the other kind.")
        if len(self._read) > 1 and self._worth == "advantage":
            kinds = ", ".join(f"{rows} have {name}" for name, rows in self._read.items())
            raise DataError(f"{label}: of its rows {kinds}: advantages are made in one way for all.")
        return _less_mean(examples, label) if self._worth == "advantage" and "reward" in self._read else examples

    def _weight(self, columns: Mapping[str, Any]) -> Weigh:
        row, tokens = columns.get("weight"), columns.get("weights")
        self._read.update(name for name, value in (("weight", row), ("weights", tokens)) if value is not None)
        number = 1.0 if row is None else number_of(row, "weight", least=0)
        if tokens is None:
            return lambda ids, _: np.full(len(ids), number, np.float32)
        listed, said = _listed(tokens), columns.get("completion", columns.get("text"))
        if said is None:
            raise BadRow("its weights are of a completion's tokens, and it has messages: these have a weight alone")
        spans = [span for span in listed if isinstance(span, Mapping)]
        if not spans:
            numbers = [number_of(one, "weights", least=0) for one in listed]
            return lambda ids, ends: number * _in_order(numbers, ids, ends)
        if len(spans) < len(listed):
            raise BadRow("weights must be numbers, or spans such as {span: [0, 4], weight: 2}, and it has both")
        placed = [(*_span(one), _weight(one.get("weight"))) for one in spans]
        return lambda ids, ends: number * _balanced(of_tokens(self._tokenizer, ids, ends, said, placed))


def _weight(given: Any) -> float:
    return _KEYED if given == KEY else number_of(given, "weights: weight", least=0)


def _balanced(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Key tokens weigh what TL-Training (arXiv:2412.15495) gives them: others / key, from 1 to MOST."""
    key = weights == _KEYED
    number = int(key.sum())
    if number:
        weights[key] = min(max((len(weights) - number) / number, 1.0), MOST)
    return weights


def _in_order(numbers: Sequence[float], ids: Sequence[int], ends: Collection[int]) -> NDArray[np.float32]:
    """One for each token; the end, which may not be among them, then weighs 1."""
    own = len(ids) - (ids[-1] in ends)
    if len(numbers) not in (own, len(ids)):
        but = f", or {own} without its end" if own < len(ids) else ""
        raise BadRow(f"it has {len(numbers)} weights for a completion of {len(ids)} tokens{but}; posttrain data shows them")
    return np.array([*numbers, *[1.0] * (len(ids) - len(numbers))], np.float32)


def _less_mean(examples: list[Example], label: str) -> list[Example]:
    """Rewards less the mean of all rows with the same prompt."""
    rewards: defaultdict[bytes, list[float]] = defaultdict(list)
    for example in examples:
        for row in example.rows:
            rewards[row.prompt.tobytes()].append(_first(row))
    alone = sum(len(of) == 1 for of in rewards.values())
    if alone == len(rewards):
        raise DataError(
            f"{label}: rows have a reward and no advantage, and no prompt stands in two rows: less the mean of its prompt "
            "each is 0. Give a column advantage, or value, what an answer to the prompt is worth on average."
        )
    tell(
        "advantages-from-rewards",
        f"{label}: advantages are rewards less the mean reward of the rows with the same prompt; {alone} of {len(rewards)} "
        "prompts stand in one row, whose advantage is 0.",
    )

    def less(row: Row) -> Row:
        of_prompt = rewards[row.prompt.tobytes()]
        return replace(row, weight=np.full(len(row.completion), _first(row) - sum(of_prompt) / len(of_prompt), np.float32))

    return [replace(example, rows=tuple(map(less, example.rows))) for example in examples]


def _first(row: Row) -> float:
    assert row.weight is not None
    return float(row.weight[0])


def _forgotten(value: Any, name: str) -> float:
    """-1 where a row is to be forgotten, 1 where not."""
    said = {"true": -1.0, "1": -1.0, "false": 1.0, "0": 1.0}.get(str(value).lower())
    if said is None:
        raise BadRow(f"{name} must be true or false, not {value!r:.40}")
    return said


def _label(value: Any, name: str) -> float:
    """1 where the completion is wanted, -1 where it is not; a truth value, or its text, as tables hold it."""
    said = {"true": True, "false": False}.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(said, bool):
        raise BadRow(f"{name} must be true, where the completion is wanted, or false, not {value!r:.40}")
    return 1.0 if said else -1.0


_NUMBERS: Mapping[str, Callable[[Any, str], float]] = {"forget": _forgotten, "label": _label}
"""Of columns that hold no number."""


def _listed(value: Any) -> list[Any]:
    """A list, or the JSON text of one, as tables hold it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, (list, tuple)) or not value:
        raise BadRow("weights must be a list of numbers, one for each token, or of spans such as {span: [0, 4], weight: 2}")
    return list(value)


def _span(given: Mapping[str, Any]) -> tuple[int, int]:
    ends = given.get("span")
    if not isinstance(ends, (list, tuple)) or len(ends) != 2 or set(given) != {"span", "weight"}:
        raise BadRow(f"weights: a span is {{span: [from, to], weight: number}}, not {str(dict(given))[:60]}")
    start, end = ends
    if type(start) is not int or type(end) is not int:
        raise BadRow(f"weights: a span is of whole numbers of characters, not {ends}")
    return start, end
