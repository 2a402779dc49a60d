"""The child process that reads and compares answers with math-verify; its parent owns the deadline.

What stands in a form, or is all of a text, is read whole or not at all: as a formula, a number with its unit, or words. Only
of prose is a part taken, the last formula or number.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import gcd
from typing import Any

from math_verify import verify

from posttrain.rewards.isolated.mathematics import notation
from posttrain.rewards.isolated.mathematics.equality import differ, is_value, other_case
from posttrain.rewards.isolated.mathematics.formulas import LONGEST, formulas, part, use_the_grammar_alone, valid, words_of
from posttrain.rewards.isolated.serve import serve

MEMORY = 4 * 2**30  # bytes of address space; sympy and its parser need under 1 GiB
CACHED = 256  # texts: the answers of a group are compared in pairs
LONGEST_WORDS = 8  # of a reference without any form: what has more is prose, and nothing that an answer could equal
_FRACTION = re.compile(r"\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}|(\d+)\s*/\s*(\d+)")
_BASE = re.compile(r"(\d[\dA-Fa-f]*)_\{?(\d+)\}?")


@dataclass(frozen=True)
class Answer:
    """What is compared of an answer: how it is written, its words or else its formulas, and whether its order counts.

    `stands` is False of prose, which is equal to what is written alike and else no answer.
    """

    written: str
    words: str | None = None
    formulas: tuple[Any, ...] = ()
    stands: bool = True

    @property
    def ordered(self) -> bool | None:
        """Whether brackets say that the order of several counts; None where they say nothing."""
        if self.written.startswith("\\{"):
            return False
        return True if self.written[:1] in ("(", "[") and "," in self.written else None


def _make() -> Callable[[dict[str, Any]], Any]:
    """Answers requests by their name. An answer is a text and the form that it was found in.

    {"do": "grade", "gold": …, "answer": …, "values": …} → {"verdict": …, "value": …}
    {"do": "read", "answer": …} → its value, or null
    {"do": "equal", "first": …, "second": …} → whether either is right where the other is the reference
    {"do": "valid", "text": …} → whether all of it is mathematics
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    use_the_grammar_alone()
    names: dict[str, Callable[..., Any]] = {"grade": grade, "read": read, "equal": equal, "valid": valid}
    return lambda request: names[request.pop("do")](**request)


def grade(gold: list[str], answer: list[str], values: bool) -> dict[str, str | None]:
    """The verdict on an answer, and its value. `values`: an operation that is left is no value."""
    reference, found = referred(*gold), parsed(*answer)
    if reference is None or found is None:
        return {"verdict": "bad_reference" if reference is None else "unparsable", "value": None}
    right = is_right(reference, found)
    if not right and not found.stands:
        return {"verdict": "unparsable", "value": None}
    right = right and not (values and _is_done(reference) and not _is_done(found))
    return {"verdict": "right" if right else "wrong", "value": _value(reference if right else found)}


def read(answer: list[str]) -> str | None:
    """The value of an answer."""
    found = parsed(*answer)
    if found is None or not found.stands:
        return None
    is_right(Answer("1", formulas=formulas("1")), found)  # what cannot be compared with anything is out here, alone
    return _value(found)


def equal(first: list[str], second: list[str]) -> bool:
    """Whether either of two answers is right where the other is the reference."""
    one, other = parsed(*first), parsed(*second)
    if one is None or other is None:
        return False
    if one.formulas and other.formulas and differ(one.formulas[0], other.formulas[0]):
        return False
    return is_right(one, other) or is_right(other, one)


def is_right(gold: Answer, found: Answer) -> bool:
    """By how they are written, by their words, or by their formulas."""
    if gold.written and gold.written == found.written:
        return True
    if gold.words is not None and found.words is not None:
        return gold.words == found.words
    if gold.ordered is not None and found.ordered is not None and gold.ordered != found.ordered:
        return False
    bases = [_BASE.fullmatch(one.written) for one in (gold, found)]
    if any(bases):
        digits = [base[1] if base else one.written for base, one in zip(bases, (gold, found), strict=True)]
        return digits[0] == digits[1] and (not all(bases) or len({base[2] for base in bases if base}) == 1)
    golds, founds = (list(one.formulas or formulas(one.written)) for one in (gold, found))
    if not (golds and founds) or other_case(golds[0], founds[0]):
        return False
    return verify(golds, founds, allow_set_relation_comp=True, timeout_seconds=None)


@lru_cache(maxsize=CACHED)
def parsed(text: str, form: str) -> Answer | None:
    """What a text says in its form; None: there is nothing that could be compared."""
    text = _one_line(text)
    loose = form in ("all", "phrase")
    if len(text) > LONGEST or (loose and "\n" in text):
        return Answer("", formulas=taken) if loose and (taken := part(text)) else None
    written, words = notation.written(text), notation.words(text)
    if not written:
        return None
    prose = loose and len(words_of(text, 2)) > (words is not None)
    if words is not None and not prose:
        return Answer(written, words)
    if taken := part(text) if prose else formulas(text) or (part(text) if loose else ()):
        return Answer(written, formulas=taken)
    return Answer(written, words or written, stands=not loose)


@lru_cache(maxsize=CACHED)
def referred(text: str, form: str) -> Answer | None:
    """A reference, of which no part is taken: it is a formula, words, or prose that nothing can be compared with."""
    text = _one_line(text)
    if form == "phrase" or "\n" in text or len(text) > LONGEST:
        return parsed(text, form) if form == "phrase" else None
    words = notation.words(text)
    if words is None and (taken := formulas(text)):
        return Answer(notation.written(text), formulas=taken)
    if form == "all" and len(text.split()) > LONGEST_WORDS:
        return None
    return Answer(notation.written(text), words or notation.written(text)) if text.strip() else None


def _one_line(text: str) -> str:
    """A text that is one formula on several lines, on one."""
    return " ".join(text.split()) if re.match(r"\\begin|\\\[|\$\$", text) and text.endswith(("}", "\\]", "$$")) else text


def _is_done(answer: Answer) -> bool:
    """Whether it is a value, its fractions in lowest terms."""
    parts = [[int(part) for part in found.groups() if part] for found in _FRACTION.finditer(answer.written)]
    return all(bottom != 1 and gcd(top, bottom) == 1 for top, bottom in parts) and all(map(is_value, answer.formulas))


def _value(answer: Answer) -> str | None:
    """None for what Python does not write: integers of more than 4300 digits."""
    try:
        return answer.words or str(answer.formulas[0])
    except ValueError:
        return None


if __name__ == "__main__":
    serve(_make)
