"""The formulas of a text, read by math-verify's LaTeX grammar alone.

Nothing of a text is executed. math-verify's other reader, of plain arithmetic, would hand digits and operators to sympy's
`parse_expr`, which evaluates them as Python; the grammar takes its place.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import Any

from latex2sympy2_extended import latex2sympy, normalize_latex
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from math_verify import ExprExtractionConfig, LatexExtractionConfig, grader, parse, parser

from posttrain.rewards.isolated.mathematics import notation
from posttrain.rewards.isolated.mathematics.equality import same_number

LONGEST = 2000  # characters of an answer that are read; of prose, the last ones
_COMMANDS = re.compile(r"\\begin\s*\{\w+\}|\\end\s*\{\w+\}|\\(?:text\w*|[mh]box|math\w\w)\s*\{[^{}]*\}|\\[A-Za-z]+")
_NAMES = {"and", "or", "pi", "infinity", "sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "in"}
_NUMBER = re.compile(
    r"(?:about |approximately |approx\. |~|\\approx\s*)?(-?(?:[\d.,]*\d)(?:\s*/\s*\d+)?)\s*((?:[^\W\d_]|\\text|\\mbox)[^\d]*)"
)
_COLON = re.compile(r"\d\s*:\s*\d")  # a ratio or a time: compared as it is written
_CONFIGS = (LatexExtractionConfig(), ExprExtractionConfig())
_AS_IT_IS = replace(_CONFIGS[0].normalization_config, boxed="none")
_grammar = parser.parse_latex_cached


def use_the_grammar_alone() -> None:
    """Has math-verify read whatever it reads so, in all of this process, and compare numbers by their digits."""
    parser.latex2sympy = partial(latex2sympy, conversion_config=ConversionConfig(lowercase_symbols=False))
    parser.parse_expr_cached = lambda text: _grammar(notation.latex(text.rstrip(" .")))
    grader.sympy_numeric_eq = same_number


def formulas(text: str) -> tuple[Any, ...]:
    """The one that a text is, or none."""
    found = whole(text)
    return () if found is None else (found,)


def whole(text: str) -> Any:
    """A text as a formula, or as a number with its unit; None where it is neither."""
    written = notation.latex(text)
    if _COLON.search(written):
        return None
    if len(words_of(text, 3)) < 2 and (found := formula(written)) is not None:
        return found
    number = _NUMBER.fullmatch(text.strip(" $"))
    return None if number is None else formula(notation.latex(number[1]))


def part(text: str) -> tuple[Any, ...]:
    """The last formula or number of prose, as math-verify finds it."""
    found = parse(text[-LONGEST:], extraction_config=_CONFIGS, parsing_timeout=None)  # type: ignore[arg-type]
    return tuple(one for one in found if not isinstance(one, str))


def formula(text: str) -> Any:
    """What the grammar makes of all of a text, or None."""
    try:
        return _grammar(normalize_latex(text, _AS_IT_IS))  # type: ignore[arg-type]
    except Exception:
        return None


def valid(text: str) -> bool:
    """Whether all of a text is mathematics."""
    try:
        return latex2sympy(normalize_latex(text, _AS_IT_IS), normalization_config=None) is not None  # type: ignore[arg-type]
    except Exception:
        return False


def words_of(text: str, letters: int) -> list[str]:
    """The words of a text outside of commands, of at least so many letters."""
    found = re.findall(rf"(?<![A-Za-z\d])[^\W\d_]{{{letters},}}", _COMMANDS.sub(" ", text))
    return [word for word in found if word.casefold() not in _NAMES]
