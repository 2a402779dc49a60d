"""The child process that compares answers with math-verify. One JSON line in, one out; its parent owns the deadline.

A hostile answer can freeze sympy or fill the memory: here that costs a child. Nothing of a text is executed: math-verify
parses extracted LaTeX, and no `eval`, `sympify` or `parse_expr` of ours touches it.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

MEMORY = 4 * 2**30  # bytes of address space; sympy and its parser need under 1 GiB


def main() -> None:
    """Answers requests `{"gold": …, "answer": …}` with `{"verdict": …, "value": …}` until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    configs = (LatexExtractionConfig(), ExprExtractionConfig())

    def parsed(text: str) -> list[Any]:
        return parse(text, extraction_config=configs, parsing_timeout=None)  # type: ignore[arg-type]

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        gold, answer = parsed(f"${request['gold']}$") or parsed(request["gold"]), parsed(request["answer"])
        if not gold or not answer:
            reply = {"verdict": "unparsable" if gold else "bad_reference", "value": None}
        else:
            right = verify(gold, answer, timeout_seconds=None)
            reply = {"verdict": "right" if right else "wrong", "value": str(gold[0] if right else answer[0])}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
