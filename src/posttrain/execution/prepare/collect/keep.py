"""Which of the answers to a question are kept: rules, each of which takes some of what the one before it left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from posttrain.execution.prepare.collect.answer import Answer, Written
from posttrain.settings.data.generate import Generate, Keep, Rule

SIDE = {"right": True, "wrong": False}
STRETCH = 3  # characters of which likeness counts how many are shared


class Keeper:
    """What a step keeps, and never an answer that is empty. Of new questions, which belong to no row, `unique` and `unlike`
    compare with those of all rows, the data's own among them; else with those of the same question.

    Args:
        step: its rules.
        asked: the texts of the data's questions.
    """

    def __init__(self, step: Generate, asked: Sequence[str] = ()) -> None:
        self._step = step
        self._known = list(asked) if step.made == "prompt" else []
        self._different, self._stretches = {text.strip() for text in self._known}, [stretches(text) for text in self._known]

    def kept(self, written: Written) -> list[Answer]:
        """Of a question's answers those that become rows."""
        kept = self._by(self._step.rules, written)
        if self._step.made == "prompt":
            self._different |= {one.text.strip() for one in kept}
            self._stretches += [stretches(one.text) for one in kept]
        return kept

    def others(self, written: Written) -> list[Answer]:
        """The other side of pairs: what the same rules keep of the other verdict."""
        return self._by([_turned(rule) for rule in self._step.rules], written)

    def _by(self, rules: Sequence[Keep], written: Written) -> list[Answer]:
        answers = [one for one in written.answers if one.text.strip()]
        for rule in rules:
            answers = self._one(rule, answers, written)
        return answers

    def _one(self, rule: Keep, answers: list[Answer], written: Written) -> list[Answer]:
        if isinstance(rule, Rule):
            name, number = rule.given
            return self._unlike(answers, number) if name == "unlike" else NUMBERS[name](answers, number, written)
        if rule == "finished":
            return [one for one in answers if one.finished]
        if rule == "unique":
            first = {one.text.strip(): one for one in reversed(answers)}
            return [one for one in answers if first[one.text.strip()] is one and one.text.strip() not in self._different]
        return [one for one in answers if one.right is SIDE[rule]]

    def _unlike(self, answers: list[Answer], most: float) -> list[Answer]:
        known, kept = list(self._stretches), list[Answer]()
        for one in answers:
            own = stretches(one.text)
            if all(likeness(own, other) < most for other in known):
                known.append(own)
                kept.append(one)
        return kept


def _turned(rule: Keep) -> Keep:
    if isinstance(rule, Rule) or rule not in SIDE:
        return rule
    return "wrong" if rule == "right" else "right"


def stretches(text: str) -> frozenset[str]:
    """All stretches of `STRETCH` characters of a text, without case and spaces at its ends; a shorter one whole."""
    plain = text.strip().casefold()
    return frozenset(plain[i : i + STRETCH] for i in range(max(1, len(plain) - STRETCH + 1)))


def likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard: what both have over what either has."""
    return len(one & other) / len(one | other)


def _per_question(answers: list[Answer], number: float, written: Written) -> list[Answer]:
    return answers[: int(number)]


def _min_tokens(answers: list[Answer], number: float, written: Written) -> list[Answer]:
    return [one for one in answers if one.tokens >= number]


def _max_tokens(answers: list[Answer], number: float, written: Written) -> list[Answer]:
    return [one for one in answers if one.tokens <= number]


def _min_share(answers: list[Answer], number: float, written: Written) -> list[Answer]:
    return answers if written.right >= number * len(written.answers) else []


NUMBERS: dict[str, Callable[[list[Answer], float, Written], list[Answer]]] = {
    "per_question": _per_question,
    "min_tokens": _min_tokens,
    "max_tokens": _max_tokens,
    "min_share": _min_share,
}
"""Rules with a number, by their names; `unlike` remembers, and is the keeper's own."""
