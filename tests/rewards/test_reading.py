"""One reading of an answer: which form counts, and what is the same answer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.rewards.grading import MathVerify
from posttrain.rewards.reading.answers import TAGS, final_answer, read

DATA = os.environ.get("POSTTRAIN_TEST_DATA")
FORMS = {
    "box": "we get 3, so \\boxed{%s}.",
    "box with a space": "so $\\boxed {%s}$",
    "fbox": "\\fbox{%s}",
    "hashes": "12\n#### %s",
    "hashes and an explanation": "#### %s\n\nThis is because adding 2 to 40 is that.",
    "line": "We see 3.\nAnswer: %s",
    "letter": "x\nA: %s",
    "markdown": "x\n**Final Answer:** %s",
    "label above": "x\n\n**Answer:**\n\n%s",
    "German": "Es sind 3.\nAntwort: %s",
    "Chinese": "3\n答案：%s",
    "phrase": "So the answer is %s.",
    "Minerva's phrase": "Final Answer: The final answer is $%s$. I hope it is correct.",
    "tags": "<think>7</think><answer>%s</answer>",
    "box in tags": "<answer>it is \\boxed{%s}</answer>",
    "after thinking": "<think>\\boxed{8}</think>\n%s",
    "bare": "%s",
    "formula": "$%s$",
    "display": "\\[%s\\]",
    "full stop": "%s.",
}
SOME = (
    "5,15", "(1,2)", r"\sqrt{2}", "x^2+1", "5.3e-9", r"2\pi", "yes", "18", "1/2", r"\text{(B)}", "A, B, C", "TFFT", "204_5",
    "50%", "$5", "€3.50", "1,234", "1 4/5", "3:2", "10:30", "[2,5)", r"\{1,2\}", "x = 5", "5 cm", "-3", "−3", "½", "2√3", 
    "x²", r"1, 2, \ldots, 10", r"0.\overline{3}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "Paris", "12 apples",
)  # fmt: skip


@pytest.fixture(scope="module")
def judge() -> Iterator[MathVerify]:
    grader = MathVerify(deadline=20.0)
    yield grader
    grader.close()


def verdict(judge: MathVerify, gold: str, text: str) -> str:
    return judge.grade(text, "", gold).verdict


def is_right(judge: MathVerify, gold: str, answer: str) -> bool:
    return verdict(judge, gold, f"\\boxed{{{answer}}}") == "right"


@pytest.mark.parametrize("form", FORMS)
def test_a_reference_accepts_itself_in_every_form(judge: MathVerify, form: str) -> None:
    assert [gold for gold in SOME if verdict(judge, gold, FORMS[form].replace("%s", gold)) != "right"] == []


@pytest.mark.skipif(DATA is None, reason="POSTTRAIN_TEST_DATA names no folder with the answers")
def test_every_gold_answer_accepts_itself_in_every_form(judge: MathVerify) -> None:
    names = ("math500", "aime24", "aime25", "amc23", "gsm8k_test")
    lines = [line for name in names for line in (Path(DATA or "") / f"{name}.jsonl").read_text().splitlines()]
    golds = {final_answer(json.loads(line)["answer"]): json.loads(line)["answer"] for line in lines}
    whole = [gold for gold in golds if gold.removeprefix("-").isdigit()]
    some = set(golds) - set(whole) | set(whole[::32])  # studies/graders.py takes all of them
    golds = {gold: row for gold, row in golds.items() if gold in some}
    refused = [
        (form, gold)
        for gold, row in golds.items()
        for form, text in FORMS.items()
        if verdict(judge, row, text.replace("%s", gold)) != "right"
    ]
    assert len(golds) > 200 and refused == []


@pytest.mark.parametrize("word", ["BADC", "east", "no", "TFFT", "A, B, C", r"\text{even}", "listen", r"\{\text{north}\}"])
def test_no_anagram_is_right(judge: MathVerify, word: str) -> None:
    letters = [place for place, sign in enumerate(word) if sign.isalpha() and "\\text" not in word]
    letters = letters or list(range(word.index("{\\text{") + 7 if "{\\text{" in word else 6, word.index("}")))
    for moved in list(permutations(letters))[1:24]:
        other = list(word)
        for place, source in zip(letters, moved, strict=True):
            other[place] = word[source]
        if "".join(other).casefold() != word.casefold():
            assert not is_right(judge, word, "".join(other)), other
    assert is_right(judge, word, word)


@settings(max_examples=60, deadline=None)
@given(st.text("abcdnot", min_size=2, max_size=7), st.randoms(use_true_random=False))
def test_shuffled_letters_are_another_word(judge: MathVerify, word: str, random: object) -> None:
    letters = list(word)
    random.shuffle(letters)  # type: ignore[attr-defined]
    assert is_right(judge, word, "".join(letters)) == ("".join(letters) == word)


@pytest.mark.parametrize(
    ("gold", "text", "expected"),
    [
        ("42", "<think>I get \\boxed{42}</think>\nThe final answer is 17.", "wrong"),
        ("17", "<think>I get \\boxed{42}</think>\nThe final answer is 17.", "right"),
        ("42", "<think>I get \\boxed{42}. But wait", "unparsable"),
        ("42", "\\boxed{42} <think> or", "unparsable"),
        ("42", "maybe \\boxed{7} </think> \\boxed{42}", "right"),
        ("42", "It seems \\boxed{42}. But no, so \\boxed{4", "unparsable"),
        ("42", "<answer>42", "unparsable"),
        ("42", "<answer>41</answer> no: <answer>42</answer>", "right"),
        ("42", "\\boxed{42} no, \\boxed{}", "unparsable"),
        ("42", "42\n\n#### Notes\n\nThe answer is 42.", "right"),
        ("40", "#### 42\n\nThis is because adding 2 to 40", "wrong"),
        ("42", "#### Step 1: Add 40\n#### 2. Then 2\nSo 42", "right"),
        ("4", "The answer is 4. The answer is not 5.", "right"),
        ("1, 2", "$\\boxed{1}$ and $\\boxed{2}$", "right"),
        ("1, 2", "first \\boxed{1}, which gives \\boxed{2}", "wrong"),
    ],
)
def test_what_the_answer_is(judge: MathVerify, gold: str, text: str, expected: str) -> None:
    assert verdict(judge, gold, text) == expected


@pytest.mark.parametrize("begin", [tag for tag in TAGS[::2] if tag != "<answer>"])
def test_thinking_of_every_template_is_no_answer(begin: str) -> None:
    end = TAGS[TAGS.index(begin) + 1]
    assert read(f"{begin} \\boxed{{42}}") is None and read(f"\\boxed{{7}} {begin} \\boxed{{42}}") is None
    assert final_answer(f"{begin} \\boxed{{42}} {end} So \\boxed{{7}}") == "7"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*TAGS, "\\boxed{4", "}", "#### ", "A: ", "42", "\n", "the answer is ", "$"]), max_size=12))
def test_nothing_is_read_after_thinking_that_is_not_closed(parts: list[str]) -> None:
    text = "".join(parts)
    assert read(text + "<think> \\boxed{42}") is None
    found = read(f"{text}<think> \\boxed{{42}} </think>17")
    assert found is not None and found.text == "17"


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("1", "The answer is 1/2.", False),
        (r"\frac{1}{2}", "The answer is 1/2.", True),
        ("7", "It is 3+4.", True),
        ("3", "It is 3+4.", False),
        ("8", "So we get 2^3.", True),
        ("2", "So we get 2^3.", False),
        ("12", "That makes 3*4.", True),
        ("3.5", "It makes 3.5.", True),
    ],
)
def test_a_sentence_ends_with_a_whole_formula(judge: MathVerify, gold: str, text: str, right: bool) -> None:
    assert (verdict(judge, gold, text) == "right") == right


EQUAL = [
    ("2e-7", "2\\cdot 10^{-7}"), ("0.333333", "1/3"), ("x^2", "x**2"), (r"\sqrt{2}", "√2"), (r"4\sqrt{2}", "4\\sqrt(2)"),
    ("[2,5)", r"2 \le x < 5"), (r"2 \le x < 5", "[2,5)"), ("1.8", "1 4/5"), ("1.5", "1½"), ("x^2", "x²"), ("-3", "−3"),
    ("1000", "1 000"), ("1000", "1,000"), ("0.5", "50%"), ("50", "50%"), ("12", "12 apples"), ("5", "x = 5"), ("5", "$5"),
    (r"\{1,2\}", r"\{2,1\}"), ("1, 2", "2 and 1"), ("204_5", "204"), ("(B)", "B"), (r"\text{(B)}", "B."), ("yes", "Yes"),
    (r"\frac13", r"0.\overline{3}"), ("3:2", "3 : 2"), ("sin(x)", r"\sin x"), (r"\pi/2", "π/2"), ("ab", r"b \cdot a"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"), ("12", "12.0"), (r"2\pi", "2 pi"),
    ("3R^2", "3 R^{2}"), ("R+r", "r+R"), ("Paris", "PARIS"),
]  # fmt: skip
UNEQUAL = [
    ("2e-7", "1e-7"), ("1/2004!", "1/2006!"), ("6.63e-34", "1.6e-19"), ("2e-7\\%", "1e-7\\%"), ("(2e-7, 1)", "(1e-7, 1)"),
    ("12345678.5", "12345679.5"), ("1000001", "1000001.1"), ("4", "4\\sqrt(2)"), ("2", "2√3"), ("0", r"0.\overline{3}"),
    ("(1,2)", r"\{1,2\}"), (r"\{1,2\}", "(1,2)"), ("(1,2)", "(2,1)"), ("204_5", "204_7"), ("204_5", "54"), ("1/3", "10:30"),
    (r"1, 2, \ldots, 10", r"1, 2, \ldots, 11"), ("[2,5)", "[2,5]"), ("50%", "0.5%"), ("1.2.3", "1.2"), ("R", "r"),
    ("5/9", "6/0"), ("yes", "no"), ("-3", "3"), ("(B)", "(C)"), ("even", "2k"),
    ("3R^2", "3r^2"), (r"\pi(R^2-r^2)", "0"), ("0", "R-r"), (r"\frac{R}{r}", "1"), ("X_1", "x_1"), (r"\Delta", r"\delta"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_the_same_answer_written_otherwise_is_right(judge: MathVerify, gold: str, answer: str) -> None:
    assert is_right(judge, gold, answer)


@pytest.mark.parametrize(("gold", "answer"), UNEQUAL)
def test_another_answer_is_wrong(judge: MathVerify, gold: str, answer: str) -> None:
    assert verdict(judge, gold, f"\\boxed{{{answer}}}") == "wrong"


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-300, 1e300).map(lambda number: float(f"{number:.12e}")), st.sampled_from([0.5, 0.9, 1.01, 1.1, 2, 100]))
def test_numbers_are_compared_by_their_digits_however_small(judge: MathVerify, number: float, factor: float) -> None:
    assert is_right(judge, repr(number), f"{number:.12e}") and not is_right(judge, repr(number), repr(number * factor))


@pytest.mark.parametrize(
    "gold",
    ["The quick brown fox jumps over the lazy dog today", "He sells 9 eggs.\nThen he has 18 dollars left.", "?" * 3000],
)
def test_prose_is_a_bad_reference(judge: MathVerify, gold: str) -> None:
    assert verdict(judge, gold, "\\boxed{18}") == "bad_reference"


def test_an_operation_that_is_left_is_no_value_where_values_are_asked_for() -> None:
    grader = MathVerify(only_values=True)
    try:
        for text in ("50 + 75", "5 \\cdot 25", "\\frac{250}{2}", "5^3", "130 - 5"):
            assert verdict(grader, "125", f"\\boxed{{{text}}}") == "wrong", text
        values = (
            "125",
            "3/4",
            "\\frac{3}{4}",
            "2\\sqrt{3}",
            "-7",
            "1+\\sqrt{2}",
            "x^2+1",
            "(3, \\frac{\\pi}{2})",
            "2.5e-9",
            "50\\%",
        )
        for text in values:
            assert verdict(grader, text, f"\\boxed{{{text}}}") == "right", text
        assert verdict(grader, "2^{100}", "\\boxed{2^{100}}") == "right"
        assert verdict(grader, "125", "we want to add them together. 50 + 75 is") == "wrong"
    finally:
        grader.close()
