"""The child process that reads and compares answers with math-verify; its parent owns the deadline.

Nothing of a text is executed: answers go through math-verify's LaTeX grammar. Its other reader, of plain arithmetic, would
hand digits and operators to sympy's `parse_expr`, which evaluates them as Python; the grammar takes its place.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from posttrain.rewards.isolated.serve import serve

MEMORY = 4 * 2**30  # bytes of address space; sympy and its parser need under 1 GiB
CACHED = 256  # texts: the answers of a group are compared in pairs
GAP = 1e-3  # of two values; math-verify rounds to six decimals


def _make() -> Callable[[dict[str, str]], Any]:
    """Answers requests by their name.

    {"do": "grade", "gold": …, "answer": …} → {"verdict": …, "value": …}
    {"do": "read", "answer": …} → its value, or null
    {"do": "equal", "first": …, "second": …} → whether either is right where the other is the reference
    {"do": "valid", "text": …} → whether all of it is mathematics
    """
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from latex2sympy2_extended import latex2sympy, normalize_latex
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, parser, verify

    parser.parse_expr_cached = parser.parse_latex_cached
    configs = (LatexExtractionConfig(), ExprExtractionConfig())
    as_it_is = replace(configs[0].normalization_config, boxed="none")

    @lru_cache(maxsize=CACHED)
    def parsed(text: str) -> list[Any]:
        return parse(text, extraction_config=configs, parsing_timeout=None)  # type: ignore[arg-type]

    def is_right(gold: list[Any], found: list[Any]) -> bool:
        return verify(gold, found, timeout_seconds=None)

    def grade(gold: str, answer: str) -> dict[str, str | None]:
        reference, found = parsed(f"${gold}$") or parsed(gold), parsed(answer)
        if not reference or not found:
            return {"verdict": "unparsable" if reference else "bad_reference", "value": None}
        right = is_right(reference, found)
        return {"verdict": "right" if right else "wrong", "value": _written(reference[0] if right else found[0])}

    def read(answer: str) -> str | None:
        found = parsed(answer)
        if not found:
            return None
        is_right(parsed("$1$"), found)  # what cannot be compared with anything is out here, before it meets the others
        return _written(found[0])

    def equal(first: str, second: str) -> bool:
        one, other = parsed(first), parsed(second)
        return not _differ(one[0], other[0]) and (is_right(one, other) or is_right(other, one))

    def valid(text: str) -> bool:
        try:
            return latex2sympy(normalize_latex(text, as_it_is), normalization_config=None) is not None  # type: ignore[arg-type]
        except Exception:
            return False

    names: dict[str, Callable[..., Any]] = {"grade": grade, "read": read, "equal": equal, "valid": valid}
    return lambda request: names[request.pop("do")](**request)


def _differ(one: Any, other: Any) -> bool:
    """Whether two expressions have different values where their variables have some; found sooner than by simplifying.

    Not of percentages and words, whose equality is none of values.
    """
    from sympy import Expr, Symbol, UnevaluatedExpr

    if not all(isinstance(e, Expr) and not isinstance(e, Symbol) and not e.has(UnevaluatedExpr) for e in (one, other)):
        return False
    try:
        gap = one - other
        names = sorted({symbol.name for symbol in gap.free_symbols})
        return bool(abs(gap.evalf(subs={symbol: 0.6 + names.index(symbol.name) / 7 for symbol in gap.free_symbols})) > GAP)
    except Exception:
        return False


def _written(value: Any) -> str | None:
    """None for what Python does not write: integers of more than 4300 digits."""
    try:
        return str(value)
    except ValueError:
        return None


if __name__ == "__main__":
    serve(_make)
