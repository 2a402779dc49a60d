r"""An answer as it is written → LaTeX that the grammar reads whole, or words.

Plain and Unicode notation becomes LaTeX: `x**2`, `x²`, `√2`, `sqrt(2)`, `sin(x)`, `5.3e-9`, `1 4/5`, `1 000`, `−3`, `½`,
`0.\overline{3}`. Words are an answer of at least one letter that has no digit, operator or command: `east`, `(B)`, `yes`,
`A, B, C`, `\text{no solution}`. They are compared as they are written.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SYMBOLS = {
    "−": "-", "–": "-", "‐": "-", "‑": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "°": r"^\circ ", "′": "'", "ℝ": r"\mathbb{R}", "…": r"\ldots ", "⁄": "/",
    "（": "(", "）": ")", "，": ",", "：": ":", "；": ";", "％": "%", "。": ".",
}  # fmt: skip
_CURRENCIES = re.compile(r"\\\$|[€£¥₹₩₽₺₪₫฿]")
_FUNCTIONS = r"(?:arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp)(?=\s*[(\\\w])|pi|theta"
_WRAPPED = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt)?|[mh]box|math(?:rm|bf|it|sf)|operatorname)\s*\{([^{}]*)\}")
_RUN = re.compile(rf"{_WRAPPED.pattern}|(?<![A-Za-z\\{{])([A-Za-z]{{4,}})(?![A-Za-z{{}}])")
_SPACING = re.compile(r"\\[,;:! ]|\\q?quad\b|~|\{,\}(?=\d)")
_NOT_WORDS = re.compile(r"[\d⁰-ⁿ₀-₉¹²³¼-¾⅐-⅟\\+*/^=<>|_{}$%#&~√∑∫∏∂]|(?<!\w)-|-(?!\w)")


def latex(answer: str) -> str:
    """The answer in LaTeX, without what surrounds a formula."""
    text = _trimmed(answer)
    text = re.sub(r"(\d*)([½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])", _vulgar, text)
    text = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", text)
    text = re.sub(r"[₀₁₂₃₄₅₆₇₈₉]+", lambda m: f"_{{{m[0].translate(_SUBSCRIPTS)}}}", text)
    text = "".join(_SYMBOLS.get(sign, sign) for sign in text)
    text = unicodedata.normalize("NFKC", text)
    text = _CURRENCIES.sub("", text)
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ",", text)
    text = re.sub(r"(?<=\d)(?:\\[,;:! ]|~)+(?=\d{3})", ",", re.sub(r"(?<=\d),\\!\s*(?=\d)", ",", text))
    text = re.sub(r"(?<!\\)%", r"\\%", text)
    text = re.sub(r"(?:√|(?<![A-Za-z\\])sqrt|\\sqrt)\s*\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"√\s*(\d+|[A-Za-z]|\{)", lambda m: "\\sqrt{" + m[1] + "}" if m[1] != "{" else "\\sqrt{", text)
    text = re.sub(rf"(?<![A-Za-z\\])({_FUNCTIONS})(?![A-Za-z])", r"\\\1 ", text)
    text = re.sub(r"\*\*\s*\(([^()]*)\)|\*\*\s*(-?[\w.]+)", lambda m: f"^{{{m[1] or m[2]}}}", text)
    text = re.sub(r"(?<![\w.])(\d+(?:\.\d+)?|\.\d+)[eE]([+-]?\d+)(?!\w)", _scientific, text)
    text = re.sub(r"(?<![\w./^])([1-9]\d*)\s+(\d+)\s*/\s*([1-9]\d*)(?![\w.])", r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"(?<![\w.,])([1-9]\d{0,2})((?: \d{3})+)(?![\w])", lambda m: m[1] + m[2].replace(" ", ""), text)
    text = re.sub(r"(?<![\w.])(\d*)\.(\d*)\\(?:overline|bar|dot)\s*\{(\d+)\}", _repeating, text)
    return _RUN.sub(lambda run: f"\\text{{{run[2]}}}" if run[2] else run[0], text).strip()


def words(answer: str) -> str | None:
    """An answer of words in a form in which equal ones are equal; None where it is none of words.

    Case counts in a single letter only; spaces, wrappers, brackets around all of it and a full stop never do.
    """
    text = _trimmed(answer)
    while (bare := _WRAPPED.sub(r"\1", text)) != text:
        text = bare
    text = _SPACING.sub(" ", text)
    if _NOT_WORDS.search(text) or not any(sign.isalpha() for sign in text):
        return None
    found = written(text)
    return found if len(found) == 1 else found.casefold()


def written(answer: str) -> str:
    """Any answer in a form in which those that are written alike are equal."""
    text = unicodedata.normalize("NFKC", _SPACING.sub(" ", _trimmed(answer)))
    text = re.sub(r"\\(?:left|right|[dtc](?=frac))\s*", lambda m: "\\" if m[0][1] in "dtc" else "", text)
    text = re.sub(r"\s+", " ", text.strip(" \t\n\"'“”‘’`"))
    while len(text) > 2 and (text[0], text[-1]) in (("(", ")"), ("[", "]")) and not set(text[1:-1]) & set("()[],;"):
        text = text[1:-1].strip()
    text = re.sub(r"^([A-Za-z])\)$", r"\1", text)
    text = re.sub(r"\s*([^\w\s])\s*", r"\1", text)
    return text


def _trimmed(answer: str) -> str:
    text = answer.strip()
    for begin, end in (("**", "**"), ("__", "__"), ("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$"), ("`", "`")):
        inside = text.rstrip(".")
        if len(inside) > len(begin + end) and inside.startswith(begin) and inside.endswith(end):
            inner = inside[len(begin) : -len(end)]
            text = text if begin in inner or end in inner else inner.strip()
    return text.removesuffix(".").rstrip() if not text.endswith(("\\right.", "\\.", "...")) else text


def _vulgar(sign: re.Match[str]) -> str:
    top, bottom = unicodedata.normalize("NFKC", sign[2]).split("⁄")
    return f"{sign[1]}\\frac{{{top}}}{{{bottom}}}"


def _scientific(number: re.Match[str]) -> str:
    return f"{number[1]} \\cdot 10^{{{number[2].removeprefix('+')}}}"


def _repeating(number: re.Match[str]) -> str:
    whole, before, period = number.groups()
    if len(before + period) > 40:
        return number[0]
    value = Fraction(int((whole or "0") + before + period) - int((whole or "0") + before))
    value /= 10 ** len(before) * (10 ** len(period) - 1)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
