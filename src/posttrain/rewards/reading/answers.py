r"""What a completion gives as its answer: one reading for graders, rewards and evaluation. Nothing is evaluated here.

The first of these that is there is the answer, and nothing else of the text is:

0. Thinking is no answer: what stands before the end of the last closed one is left out; where one is open, there is none.
1. Tags: what is in the last `<answer>…</answer>`, itself read by what follows; none where they are not closed.
2. Box: what is in the last `\boxed{…}` or `\fbox{…}`, or in the last ones joined by a comma, "and" or "or", as a list; none
   where the last is not closed or is empty.
3. Hashes: what stands on the last line after `####` that is no heading; none where that is nothing.
4. Line: a last line `A: …`, `Answer: …`, `**Final answer:** …`, or the same in another language.
5. Phrase: what follows the last "answer is", to the end of its sentence.
6. The whole text: short and all of it an answer, or prose, of which math-verify takes the last formula or number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from posttrain.data.answers import ANSWER, THINKING

TAGS = tuple(tag for pair in (*THINKING, ANSWER) for tag in pair)

Form = Literal["box", "hashes", "line", "phrase", "tags", "all"]


@dataclass(frozen=True, slots=True)
class Found:
    """An answer, and the form that it was found in."""

    text: str
    form: Form


def read(completion: str) -> Found | None:
    """The answer of a completion; None where it has none."""
    rest = after_thinking(completion)
    if rest is None:
        return None
    _, tagged, inside = rest.rpartition(ANSWER[0])
    if not tagged:
        return _read(rest)
    inside, closed, _ = inside.partition(ANSWER[1])
    found = _read(inside) if closed else None
    return Found(found.text, "tags") if found is not None and found.form == "all" else found


def final_answer(completion: str) -> str:
    """The answer as it is written; empty where there is none."""
    found = read(completion)
    return found.text if found is not None else ""


def after_thinking(completion: str) -> str | None:
    """What follows the last closed thinking; None where thinking is not closed."""
    ends = (completion.rfind(end) + len(end) for _, end in THINKING if end in completion)
    rest = completion[max(ends, default=0) :]
    return None if any(begin in rest for begin, _ in THINKING) else rest


def last_box(text: str) -> str | None:
    r"""What stands between the braces of the last `\boxed{}`; None where there is none, or it is not closed."""
    place = _last_opening(text, len(text))
    inside = None if place is None else _closed(text, place.end())
    return None if inside is None else inside[0].strip()


def _read(text: str) -> Found | None:
    if _BOX.search(text):
        inside = _boxes(text)
        return Found(inside, "box") if inside else None
    if "####" in text and (line := _hashes(text)) is not None:
        return Found(line, "hashes") if line else None
    if (line := _labelled(text)) is not None:
        return _phrase(line) or Found(line, "line")
    if (found := _phrase(text)) is not None:
        return found
    return Found(text.strip(), "all") if text.strip() else None


def _boxes(text: str) -> str | None:
    insides, end = list[str](), len(text)
    while (place := _last_opening(text, end)) is not None:
        inside = _closed(text, place.end())
        if inside is None:
            break
        if insides and not _JOIN.fullmatch(text, inside[1], end):
            break
        insides.append(inside[0].strip())
        end = place.start()
    return ", ".join(reversed(insides)) if insides and all(insides) else None


def _last_opening(text: str, end: int) -> re.Match[str] | None:
    place = text.rfind("\\", 0, end)
    while place >= 0:
        if (found := _BOX.match(text, place, end)) is not None:
            return found
        place = text.rfind("\\", 0, place)
    return None


def _closed(text: str, start: int) -> tuple[str, int] | None:
    """What stands before the brace that closes one opened just before `start`, and where it ends."""
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return text[start : brace.start()], brace.end()
    return None


def _hashes(text: str) -> str | None:
    for place in reversed(list(_HASHES.finditer(text))):
        line, follows = place[1].strip(), bool(text[place.end() :].strip())
        if not follows or (line and not _HEADING.match(line)):
            return line
    return None


def _labelled(text: str) -> str | None:
    before, _, last = text.rstrip().rpartition("\n")
    if (found := _LINE.fullmatch(last.strip())) is not None:
        return found[1].strip()
    label = before.rstrip().rpartition("\n")[2].strip()
    return last.strip() if label and _LABEL.fullmatch(label) else None


def _phrase(text: str) -> Found | None:
    found = None
    for place in _PHRASE.finditer(text):
        found = place
    if found is None:
        return None
    sentence = _SENTENCE_END.split(found[1], maxsplit=1)[0].strip(" \t*_。")
    return Found(sentence.removesuffix("."), "phrase") if sentence else None


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_JOIN = re.compile(r"[\s$]*(?:[,;]|(?:,\s*)?(?:and|or|\\text\s*\{\s*(?:and|or)\s*\}))[\s$]*")
_HASHES = re.compile(r"(?<!#)####(?!#)([^\n]*)")
_LETTERS = r"[^\W\d_¹²³⁰-₟¼-¾⅐-⅟]{2,}"
_HEADING = re.compile(
    rf"[*_]*(?:{_LETTERS}(?:\s+|[:.])\S|\d+[.):]\s+{_LETTERS}|(?:notes?|solution|explanation|verification|conclusion|steps?|summary|check|"
    r"reasoning|analysis|proof|given|discussion|approach|calculations?|answer|result|remarks?)\b)",
    re.IGNORECASE,
)
_WORD = (
    r"(?:a|(?:(?:the|my|your) )?(?:final |correct )?(?:answer|result)|r[ée]ponse(?: finale)?|antwort|respuesta(?: final)?|"
    r"risposta|resposta|ответ|答案|最终答案|答え|答)"
)
_LABEL = re.compile(rf"[#>*_\s-]*{_WORD}[*_ \t]*[:：][*_ \t]*", re.IGNORECASE)
_LINE = re.compile(rf"[#>*_\s-]*{_WORD}[*_ \t]*[:：][*_ \t]*(\S.*)", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:\banswer(?:\s+(?:to|of|for)\b[^.\n]{0,80}?)?\s+(?:is|are|would be|should be|must be)\b|答案[是为])"
    r"[ \t]*[:：]?[ \t]*(?!not\b|n't)(\S[^\n]*)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s+[A-Z\"'(])|[.!?]\s*$|。|,(?=\s+(?:as|because|since|so|which|and so)\b)")
