"""What runs behind the bars, with nothing of this package: its text is handed to Python. The command's last word says what.

run: a program, whose text comes by descriptor 3. answer: a program whose functions are called by lines that come by 4, and
answered by 5. check: tests, whose text comes by 3, which call such functions by 5, and are answered by 4; what came of them
is written to 1. Values go as plain data alone, so that nothing of a program but numbers, text and their collections reaches
its tests.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

DEPTH = 50  # of values in each other
LINE = 2**20  # bytes of a call, or of an answer
SAID = 2_000  # characters of an error that are told, the last ones of where it was raised


class Odd(Exception):
    """A value that is no plain data."""


def encoded(value: Any, depth: int = 0) -> Any:
    """A value as JSON can hold it; a subclass is what it is derived from.

    Raises:
        Odd: it is no plain data.
    """
    if depth > DEPTH:
        raise Odd(f"nested deeper than {DEPTH}")
    if value is None or value is True or value is False:
        return value
    if isinstance(value, int):
        return ["i", format(int.__index__(value), "x")]
    if isinstance(value, float):
        return float.__mul__(value, 1.0) if value == value and abs(value) != float("inf") else ["n", float.__repr__(value)]
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, complex):
        return ["c", complex.__repr__(value)]
    if isinstance(value, (bytes, bytearray)):
        return ["b" if isinstance(value, bytes) else "a", value.hex()]
    for name, kind in KINDS.items():
        if isinstance(value, kind):
            return [name, [encoded(one, depth + 1) for one in kind.__iter__(value)]]
    if isinstance(value, dict):
        return ["d", [[encoded(key, depth + 1), encoded(one, depth + 1)] for key, one in dict.items(value)]]
    raise Odd(type(value).__name__)


def decoded(given: Any) -> Any:
    """The value again, of the plain types alone.

    Raises:
        ValueError, TypeError, KeyError: it is none of `encoded`'s.
    """
    if given is None or given is True or given is False or isinstance(given, (str, float)):
        return given
    name, inside = given
    if name in KINDS:
        return KINDS[name](decoded(one) for one in inside)
    if name == "d":
        return {decoded(key): decoded(one) for key, one in inside}
    return SINGLE[name](inside)


KINDS: dict[str, Any] = {"l": list, "t": tuple, "s": set, "f": frozenset}
SINGLE: dict[str, Any] = {"i": lambda text: int(text, 16), "n": float, "c": complex, "b": bytes.fromhex}
SINGLE["a"] = bytearray.fromhex


def written(file: int, said: Any) -> None:
    """Writes a line of JSON, all of it."""
    line = json.dumps(said).encode() + b"\n"
    while line:
        line = line[os.write(file, line) :]


def lines(file: int) -> Iterator[Any]:
    """Lines of JSON that are not too long, up to the end."""
    with os.fdopen(file, "rb", closefd=False) as opened:
        while (line := opened.readline(LINE)).endswith(b"\n"):
            yield json.loads(line)


def whole(file: int) -> Any:
    """All that comes, as JSON."""
    with os.fdopen(file, "rb") as opened:
        return json.loads(opened.read())


def run() -> None:
    """Runs a program as Python would, and lets it end as it does."""
    import types

    given = whole(3)
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    try:
        exec(compile(given["program"], "program.py", "exec"), module.__dict__)
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        print(shown(error, given["program"]), file=sys.stderr)
        sys.stdout.flush()
        os._exit(2 if isinstance(error, SyntaxError) and error.filename == "program.py" else 1)


def shown(error: BaseException, program: str) -> str:
    """The error as Python shows it, without what stands here."""
    import linecache
    import traceback

    linecache.cache["program.py"] = (len(program), None, program.splitlines(True), "program.py")
    after = error.__traceback__ and error.__traceback__.tb_next
    return "".join(traceback.format_exception(type(error), error, after, limit=-5)).strip()[-SAID:]


def told(error: BaseException) -> list[str]:
    """The name of an error, and its last line."""
    try:
        text = str(error)
    except BaseException:
        text = "?"
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    return [type(error).__name__[:100], (text if line is None else f"{error.args[0]} (line {line})")[:SAID]]


def answer() -> None:
    """Defines what a program defines, and answers calls of it."""
    program = whole(3)["program"]
    namespace: dict[str, Any] = {"__name__": "program"}
    try:
        code = compile(program, "program.py", "exec")
    except BaseException as error:
        return written(5, {"compile": told(error)})
    try:
        exec(code, namespace)
    except BaseException as error:
        return written(5, {"raised": told(error)})
    written(5, {"ready": [name for name, value in namespace.items() if isinstance(name, str) and callable(value)]})
    for asked in lines(4):
        try:
            named = {key: decoded(value) for key, value in asked["named"].items()}
            reply = {"value": encoded(namespace[asked["call"]](*decoded(asked["given"]), **named))}
            if len(json.dumps(reply)) >= LINE:
                raise Odd("too long")
        except Odd as error:
            reply = {"raised": ["TypeError", f"{asked['call']} gave what is no plain data: {error}"]}
        except BaseException as error:
            reply = {"raised": told(error)}
        written(5, reply)


class Gone(BaseException):
    """The program is no more."""


class Bad(Exception):
    """A test cannot be run here."""


class Program:
    """The functions of a program, as its tests see them."""

    def __init__(self) -> None:
        self._lines = lines(4)
        self.gone = False
        self.state = self._said("ready", "compile", "raised")

    def function(self, name: str) -> Callable[..., Any]:
        """A function that is called there."""

        def called(*given: Any, **named: Any) -> Any:
            try:
                asked = {"call": name, "given": encoded(given), "named": {key: encoded(one) for key, one in named.items()}}
            except Odd as error:
                raise Bad(f"a test gives {name} what is no plain data: {error}") from None
            try:
                written(5, asked)
            except OSError:
                self.gone = True
            reply = self._said("value", "raised")
            if "raised" in reply:
                raise of_program(*reply["raised"])
            return reply["value"]

        return called

    def _said(self, *expected: str) -> Any:
        """Its next word, if it is one of these; else it is gone."""
        try:
            said: Any = None if self.gone else next(self._lines)
            (key,) = {*said} & {*expected}
            if key == "value":
                return {key: decoded(said[key])}
            if key == "ready":
                return {key: {str(name) for name in said[key]}}
            name, text = said[key]
            return {key: [str(name)[:100], str(text)[:SAID]]}
        except (StopIteration, ValueError, TypeError, KeyError, AttributeError, RecursionError, MemoryError):
            self.gone = True
            raise Gone from None


def of_program(name: str, text: str) -> BaseException:
    """An exception that a program raised, of the same kind where that is one of Python's own."""
    kind: Any = getattr(builtins, name, None)
    plain = isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (UnicodeError, ExceptionGroup))
    error: Any = kind(text) if plain else Exception(f"{name}: {text}")  # pyright: ignore[reportCallIssue]
    error.of_program = f"{name}: {text}"
    return error


def check() -> None:
    """Runs tests, and says what came of each: passed, failed, raised; or gone, with the program."""
    verdict = os.dup(1)
    sys.stdout = io.StringIO()  # what tests print is nobody's
    try:
        units = parsed(whole(3)["tests"])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return written(verdict, {"bad": f"they are no Python: {error}"[:SAID]})
    try:
        program = Program()
    except Gone:
        return written(verdict, {"state": "gone"})
    state = program.state
    if "ready" not in state:
        return written(verdict, {"state": "compile" if "compile" in state else "raised", "says": ": ".join(*state.values())})
    try:
        outcomes, says = tested(program, units)
    except (Bad, ImportError) as error:
        return written(verdict, {"bad": str(error)[:SAID]})
    written(verdict, {"state": "tested", "outcomes": outcomes, "says": says})


def parsed(given: Any) -> list[tuple[bool, str, Any, set[str]]]:
    """Statements, or groups of them: whether they test or prepare, their text, their code, the names that they ask for."""
    import ast

    texts = [given] if isinstance(given, str) else given
    trees = [ast.parse(text, "tests.py") for text in texts]
    groups = [[one] for one in trees[0].body] if isinstance(given, str) else [tree.body for tree in trees]
    prepares = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    nodes = [node for tree in trees for node in ast.walk(tree)]
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    bound |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    asked = {node.id for node in nodes if isinstance(node, ast.Name)} - bound - {*dir(builtins)}
    found = list[tuple[bool, str, Any, set[str]]]()
    for group in groups:
        text = "\n".join(ast.unparse(one) for one in group)
        code = compile(ast.Module(group, []), "tests.py", "exec")
        found.append((not all(isinstance(one, prepares) for one in group), text, code, asked))
    if not any(tests for tests, *_ in found):
        raise ValueError("there is no test among them")
    return found


def tested(program: Program, units: list[tuple[bool, str, Any, set[str]]]) -> tuple[list[str], str]:
    """What came of each test, and what is said of the first that did not pass."""
    ready = program.state["ready"]
    namespace: dict[str, Any] = {name: program.function(name) for _, _, _, asked in units for name in asked if name in ready}
    namespace["__name__"] = "tests"
    outcomes, says, prepared = list[str](), "", True
    for tests, text, code, _ in units:
        outcome, why = "passed", ""
        try:
            if program.gone:
                raise Gone
            exec(code, namespace)
        except Gone:
            outcome = "gone"
        except (Bad, ImportError) as error:
            if not hasattr(error, "of_program"):
                raise
            outcome, why = "raised", str(error)
        except BaseException as error:
            outcome = "failed" if isinstance(error, AssertionError) and not hasattr(error, "of_program") else "raised"
            why = getattr(error, "of_program", ": ".join(told(error)))
        outcome = "gone" if program.gone else outcome
        prepared = prepared and (tests or outcome == "passed")
        outcome = outcome if outcome != "passed" or prepared else "raised"
        if outcome != "passed" and not says:
            says = (f"{text}\n{why}" if why.strip(": ") not in ("", "AssertionError") else text)[:SAID]
        if tests:
            outcomes.append(outcome)
    return outcomes, says


if __name__ == "__main__":
    {"run": run, "answer": answer, "check": check}[sys.argv[1]]()
