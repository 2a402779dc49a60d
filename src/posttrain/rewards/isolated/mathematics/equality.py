"""When two expressions are the same value, and what is a value. sympy is imported when these are called.

Numbers of which one is a decimal are equal up to half a unit of the sixth decimal, and below 0.1 of the sixth significant
digit: 0.333333 is 1/3, 1e-7 is not 2e-7. Exact ones are equal where 25 digits are.
"""

from __future__ import annotations

from typing import Any

DECIMALS = 5e-7  # half a unit of the sixth decimal
DIGITS = 30  # to which exact numbers are evaluated
EXACT = 1e-25
FLOAT = 1e-14  # what is left of the 15 digits of a decimal
GAP = 1e-3  # of two values where their variables have some


def same_number(one: Any, other: Any, *_: Any) -> bool:
    """Stands in the place of math-verify's comparison of numbers, which rounds to six decimals however small they are."""
    from sympy import Basic, Float, MatrixBase, MatrixExpr

    if isinstance(one, MatrixBase | MatrixExpr) or isinstance(other, MatrixBase | MatrixExpr):
        one, other = _done(one), _done(other)
        if not (isinstance(one, MatrixBase) and isinstance(other, MatrixBase)) or one.shape != other.shape:
            return False
        return all(same_number(a, b) for a, b in zip(one.flat(), other.flat(), strict=True))
    if not (isinstance(one, Basic) and isinstance(other, Basic)) or one.free_symbols or other.free_symbols:
        return False
    parts = (_percent(one), _percent(other))
    pairs = [(_done(one), _done(other))]
    if parts[0] is not None and parts[1] is not None:
        pairs = [parts]
    elif parts[0] is not None or parts[1] is not None:
        pairs.append((_done(one) if parts[0] is None else parts[0], _done(other) if parts[1] is None else parts[1]))
    exact = not (one.has(Float) or other.has(Float))
    return any(_close(a, b, exact) for a, b in pairs)


def differ(one: Any, other: Any) -> bool:
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


def other_case(one: Any, other: Any) -> bool:
    """Whether two symbols differ in the case of their letters only, of which math-verify makes nothing."""
    from sympy import Symbol

    if not (isinstance(one, Symbol) and isinstance(other, Symbol)):
        return False
    return one.name != other.name and one.name.casefold() == other.name.casefold()


def is_value(expression: Any) -> bool:
    """Whether no operation of numbers is left to be carried out: 125, 3/4, 2*sqrt(3) and x + 1 are values; 50 + 75, 2*3, 6/4,
    2**3 and 5! are not. Of a list, a pair or a matrix, whether all that is in it is.
    """
    from sympy import Add, Basic, Expr, Function, Integer, MatrixBase, Mul, Number, Pow, factorial

    if isinstance(expression, MatrixBase):
        return all(is_value(entry) for entry in expression.flat())
    if not isinstance(expression, Basic):
        return True

    def left(node: Any) -> bool:
        numbers = [part for part in node.args if _is_number(part)]
        if isinstance(node, Add):
            return len(numbers) > 1
        if isinstance(node, Mul):
            return _left_of_product(node)
        if isinstance(node, Pow):
            whole = isinstance(node.base, Number) and isinstance(node.exp, Integer)
            return whole and node.exp != -1 and node.base != 10
        return isinstance(node, factorial) or (isinstance(node, Function) and type(node).__name__ in ("binomial", "Abs"))

    nodes = _nodes(expression)
    return not any(isinstance(node, Expr) and left(node) for node in nodes)


def _nodes(expression: Any) -> list[Any]:
    from sympy import preorder_traversal

    return list(preorder_traversal(expression))


def _is_number(part: Any) -> bool:
    from sympy import Mul, Number, Pow

    if isinstance(part, Mul):
        return all(_is_number(one) for one in part.args)
    return isinstance(part, Number) or (isinstance(part, Pow) and isinstance(part.base, Number) and part.exp == -1)


def _left_of_product(node: Any) -> bool:
    """A product of numbers, but for a sign, a fraction in lowest terms, a percentage and a power of ten."""
    from math import gcd

    from sympy import Integer, Number, Pow, UnevaluatedExpr

    if any(isinstance(part, UnevaluatedExpr) for part in node.args):
        return False
    tops = [part for part in node.args if isinstance(part, Number) and part not in (1, -1)]
    bottoms = [part.base for part in node.args if isinstance(part, Pow) and part.exp == -1 and isinstance(part.base, Number)]
    if len(tops) > 1 or len(bottoms) > 1:
        return True
    if tops and bottoms:
        whole = isinstance(tops[0], Integer) and isinstance(bottoms[0], Integer)
        return not whole or gcd(int(tops[0]), int(bottoms[0])) != 1 or abs(int(bottoms[0])) == 1
    return False


def _percent(number: Any) -> Any:
    from sympy import Mul, Rational, UnevaluatedExpr

    hundredth = UnevaluatedExpr(Rational(1, 100))
    return number.args[0] if isinstance(number, Mul) and len(number.args) == 2 and number.args[1] == hundredth else None


def _done(expression: Any) -> Any:
    try:
        return expression.doit()
    except Exception:
        return expression


def _close(one: Any, other: Any, exact: bool) -> bool:
    from sympy import Integer, Rational

    if isinstance(one, Rational) and isinstance(other, Rational):
        return one == other
    try:
        a, b = one.evalf(DIGITS), other.evalf(DIGITS)
        if not (a.is_finite and b.is_finite):
            return bool(a == b)
        gap, size = abs(a - b), max(abs(a), abs(b))
        if exact or size == Integer(0):
            return bool(gap <= EXACT * max(size, EXACT))
        return bool(gap <= max(DECIMALS * min(1, 10 * size), FLOAT * size))
    except Exception:
        return False
