"""Rewritings of an answer that leave it right, and changes that make it wrong."""

from __future__ import annotations

import re
from collections.abc import Callable

Rewriting = Callable[[str], str | None]
"""None: it does not apply to this answer."""


def _thousands(answer: str) -> str | None:
    return f"\\boxed{{{int(answer):,}}}" if re.fullmatch(r"-?\d{4,}", answer) else None


def _without_commas(answer: str) -> str | None:
    bare = re.sub(r",\\!|(?<=\d),(?=\d{3}\b)", "", answer)
    return f"\\boxed{{{bare}}}" if bare != answer and re.fullmatch(r"-?\d+", bare) else None


def _display_fraction(answer: str) -> str | None:
    return "\\boxed{" + answer.replace("\\frac", "\\dfrac") + "}" if "\\frac" in answer else None


def _plain_fraction(answer: str) -> str | None:
    match = re.fullmatch(r"(-?)\\d?frac\{(\d+)\}\{(\d+)\}", answer)
    return f"\\boxed{{{match[1]}{match[2]}/{match[3]}}}" if match else None


def _as_fraction(answer: str) -> str | None:
    return f"\\boxed{{\\frac{{{2 * int(answer)}}}{{2}}}}" if re.fullmatch(r"\d+", answer) else None


def _with_decimals(answer: str) -> str | None:
    return f"\\boxed{{{answer}.00}}" if re.fullmatch(r"-?\d+", answer) else None


def _with_unit(answer: str) -> str | None:
    return f"\\boxed{{{answer}\\text{{ cm}}}}" if re.fullmatch(r"-?\d+(\.\d+)?", answer) else None


def _in_dollars(answer: str) -> str | None:
    return f"\\boxed{{\\${answer}}}" if re.fullmatch(r"\d+(\.\d+)?", answer) else None


RIGHT: dict[str, Rewriting] = {
    "boxed": lambda answer: f"\\boxed{{{answer}}}",
    "sentence": lambda answer: f"Adding both, we see that the answer is \\boxed{{{answer}}}, as was to be shown.",
    "display": lambda answer: f"Hence\n\\[\\boxed{{{answer}}}\\]",
    "inline": lambda answer: f"Therefore the final answer is $\\boxed{{{answer}}}$.",
    "last_line": lambda answer: f"First 12 + 30 = 42.\n#### {answer}",
    "distractors_before": lambda answer: f"We try 17, then \\boxed{{99991}}, which fails. So \\boxed{{{answer}}}",
    "distractors_after": lambda answer: f"\\boxed{{{answer}}}\n\nCheck: 17 and 3 make 20, and 5 of 8 were used.",
    "spaces": lambda answer: f"\\boxed{{ {answer} }}",
    "thinking": lambda answer: f"<think>maybe \\boxed{{7}}?</think> \\boxed{{{answer}}}",
    "display_fraction": _display_fraction,
    "plain_fraction": _plain_fraction,
    "as_fraction": _as_fraction,
    "thousands": _thousands,
    "without_commas": _without_commas,
    "decimals": _with_decimals,
    "unit": _with_unit,
    "dollars": _in_dollars,
}


def _other_number(answer: str) -> str | None:
    """The first number plus one."""
    match = re.search(r"\d+", answer)
    return f"\\boxed{{{answer[: match.start()]}{int(match[0]) + 1}{answer[match.end() :]}}}" if match else None


def _negative(answer: str) -> str | None:
    """The number with the other sign."""
    if not re.fullmatch(r"-?\d*[1-9]\d*", answer):
        return None
    return f"\\boxed{{{answer[1:] if answer.startswith('-') else '-' + answer}}}"


def _ten_times(answer: str) -> str | None:
    return f"\\boxed{{{answer}0}}" if re.fullmatch(r"-?[1-9]\d*", answer) else None


def _other_word(answer: str) -> str | None:
    match = re.fullmatch(r"\\text\{\(?([A-Za-z ]+)\)?\}", answer)
    return f"\\boxed{{{answer.replace(match[1], 'Q' if len(match[1]) == 1 else 'nobody')}}}" if match else None


WRONG: dict[str, Rewriting] = {
    "other_number": _other_number,
    "negative": _negative,
    "ten_times": _ten_times,
    "other_word": _other_word,
    "only_before": lambda answer: f"It might be \\boxed{{{answer}}}, but no: \\boxed{{1234567}}",
    "only_in_the_text": lambda answer: f"Here {answer} is a distractor; the answer is \\boxed{{1234567}}",
    "empty": lambda answer: "\\boxed{}",
    "none": lambda answer: "I could not find the answer.",
}
