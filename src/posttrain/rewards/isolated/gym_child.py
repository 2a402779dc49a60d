"""The child process that scores answers with reasoning-gym; its parent owns the deadline.

Some of its verifiers give an answer to Python's eval, themselves or by sympy: while one scores, eval takes arithmetic alone.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import Any

from posttrain.data.sources.gym_made import made
from posttrain.rewards.isolated.serve import serve

MEMORY = 4 * 2**30  # bytes of address space
CALLED = {"Integer", "Float", "Rational", "Symbol", "factorial", "sqrt", "exp", "log", "ln", "Abs"}
CALLED |= {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh"}
"""What an answer may call; the first of them stand in whatever sympy reads."""
_PLAIN = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Constant, ast.Name, ast.expr_context)
_LISTS = (ast.List, ast.Tuple, ast.Call)
_STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen")
_REFUSED = (*_STARTS, "socket.connect", "socket.bind", "os.remove")


def scorer() -> Callable[[dict[str, Any]], float | None]:
    """Answers {"source": …, "index": …, "answer": …} with a score, 0 to 1; null where the verifier cannot read it.

    It makes the question again: some verifiers tell a list from a tuple, which JSON does not.
    """
    import_module("reasoning_gym")
    sys.addaudithook(_watch)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    @lru_cache(maxsize=64)
    def gym(source: str) -> Any:
        return made(**json.loads(source))

    def score(request: dict[str, Any]) -> float | None:
        asked = gym(json.dumps(request["source"], sort_keys=True))
        entry = asked[request["index"]]
        with contextlib.suppress(Exception), _arithmetic_alone():
            return float(asked.score_answer(request["answer"], entry))
        return None

    return score


_scoring = False


@contextlib.contextmanager
def _arithmetic_alone() -> Iterator[None]:
    """In its body eval refuses what is more than arithmetic, and no process is started and nothing removed or sent."""
    global _scoring
    honest = builtins.eval

    def checked(source: Any, *spaces: Any) -> Any:
        tree = ast.parse(source.strip(), mode="eval") if isinstance(source, str) else None
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call):
                allowed = isinstance(node.func, ast.Name) and node.func.id in CALLED and not node.keywords
            else:
                allowed = isinstance(node, (*_PLAIN, *_LISTS)) and not getattr(node, "id", "").startswith("_")
            if not allowed:
                raise ValueError("an answer may be arithmetic, and nothing else is evaluated")
        if tree is None:
            raise ValueError("an answer is text")
        return honest(source, *spaces)

    builtins.eval, _scoring = checked, True  # type: ignore[assignment]
    try:
        yield
    finally:
        builtins.eval, _scoring = honest, False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    """Of whatever a verifier does beside that: the second bolt, not the first."""
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if _scoring and (writes or event in _REFUSED):
        raise PermissionError(f"a verifier may not: {event}")


if __name__ == "__main__":
    serve(scorer)
