"""The child process that reads and compares answers with math-verify; its parent owns the deadline.

Nothing of a text is executed: answers go through math-verify's LaTeX grammar. Its other reader, of plain arithmetic, would
hand digits and operators to sympy's `parse_expr`, which evaluates them as Python; the grammar takes its place.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

from posttrain.rewards.serve import serve

MEMORY = 4 * 2**30  # bytes of address space; sympy and its parser need under 1 GiB


def _make() -> Callable[[Any], Any]:
    """{"gold": …, "answer": …} → {"verdict": …, "value": …};  {"valid": text} → whether all of it is mathematics."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from latex2sympy2_extended import latex2sympy
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, parser, verify

    parser.parse_expr_cached = parser.parse_latex_cached
    configs = (LatexExtractionConfig(), ExprExtractionConfig())

    def parsed(text: str) -> list[Any]:
        return parse(text, extraction_config=configs, parsing_timeout=None)  # type: ignore[arg-type]

    def is_valid(text: str) -> bool:
        try:
            return latex2sympy(text, normalization_config=None) is not None  # type: ignore[arg-type]
        except Exception:
            return False

    def answer(request: dict[str, str]) -> Any:
        if "valid" in request:
            return is_valid(request["valid"])
        gold, found = parsed(f"${request['gold']}$") or parsed(request["gold"]), parsed(request["answer"])
        if not gold or not found:
            return {"verdict": "unparsable" if gold else "bad_reference", "value": None}
        right = verify(gold, found, timeout_seconds=None)
        return {"verdict": "right" if right else "wrong", "value": str(gold[0] if right else found[0])}

    return answer


if __name__ == "__main__":
    serve(_make)
