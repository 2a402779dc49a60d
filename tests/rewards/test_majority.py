"""The group's majority as its reference: votes by equivalence, ties and silent majorities say nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import permutations

import pytest

from posttrain import Group, MajorityVote
from posttrain.rewards.grading import ExactMatch, MathVerify, TaskGrader
from posttrain.rewards.isolated.child import ChildDied


def vote(grader: object, *completions: str) -> list[float | None]:
    return [one.score for one in MajorityVote(grader).judge(of(*completions))]  # type: ignore[arg-type]


def of(*completions: str) -> Group:
    rows = len(completions)
    return Group(completions=completions, tokens=[[1]] * rows, finished=[True] * rows, columns={"prompt": "q"})


@pytest.fixture(scope="module")
def mathematics() -> Iterator[MathVerify]:
    grader = MathVerify()
    yield grader
    grader.close()


def test_equal_answers_vote_together_however_they_are_written(mathematics: MathVerify) -> None:
    half = ("\\boxed{\\frac{1}{2}}", "so \\boxed{0.5}", "#### 1/2")
    assert vote(mathematics, "\\boxed{2}", *half, "\\boxed{2}") == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert vote(mathematics, "\\boxed{1,000}", "#### 1000", "\\boxed{3}") == [1.0, 1.0, 0.0]


def test_what_stands_beside_the_group_is_judged_by_its_vote_and_has_none() -> None:
    def judged(*completions: str) -> list[float | None]:
        group = dataclasses.replace(of(*completions), beside=1)
        return [one.score for one in MajorityVote(ExactMatch()).judge(group)]

    assert judged("#### 1", "#### 2", "#### 1", "#### 2", "#### 1") == [None] * 5
    assert judged("#### 1", "#### 2", "#### 1", "#### 2") == [1.0, 0.0, 1.0, 0.0]
    assert judged("#### 1", "#### 1", "#### 3") == [1.0, 1.0, 0.0]
    assert judged("", "", "#### 3") == [None] * 3


def test_prose_votes(mathematics: MathVerify) -> None:
    assert vote(mathematics, "The answer is 18.", "So we get 18", "it is 17", "\\boxed{18}") == [1.0, 1.0, 0.0, 1.0]
    assert vote(mathematics, "no idea", "none at all", "so 3") == [None] * 3


@pytest.mark.parametrize(
    ("completions", "winners"),
    [
        (("\\boxed{50\\%}", "\\boxed{0.5}", "\\boxed{50}", "\\boxed{7}"), 3),
        (("\\boxed{x=3}", "\\boxed{3}", "\\boxed{y=3}", "\\boxed{4}"), 3),
        (("\\boxed{\\frac12}", "#### 0.50", "half of it: 1/2", "\\boxed{2}", "\\boxed{2}"), 3),
        (("The answer is 18.", "\\boxed{18}", "A: 18 dollars", "17"), 3),
        (("\\boxed{1}", "\\boxed{2}", "\\boxed{1.0}", "nothing"), 2),
        (("\\boxed{1}", "\\boxed{2}", "\\boxed{1.0}", "\\boxed{2.0}"), 0),
    ],
)
def test_the_order_of_completions_decides_nothing(
    mathematics: MathVerify, completions: tuple[str, ...], winners: int
) -> None:
    """Equality by math-verify is neither symmetric nor transitive."""
    said: set[frozenset[tuple[str, float | None, str | None]]] = set()
    for order in permutations(completions):
        judged = MajorityVote(mathematics).judge(of(*order))
        said.add(frozenset((text, one.score, one.answer) for text, one in zip(order, judged, strict=True)))
    [same] = said
    assert sum(score == 1.0 for _, score, _ in same) == winners


def test_the_majority_decides_and_the_unreadable_are_wrong() -> None:
    assert vote(TaskGrader("chain"), "12#3", "#3", "#4", "none", "5#3") == [1.0, 1.0, 0.0, 0.0, 1.0]
    assert vote(ExactMatch(), "\\boxed{Yes}", "#### yes", "no") == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "completions",
    [
        ("#3", "#4"),
        ("#3", "#3", "#4", "#4", "#5"),
        ("none", "nothing", "#3"),
        ("none", "#3"),
        ("none", "nothing"),
        ("",),
    ],
    ids=["tie", "tie of two", "silent majority", "silent tie", "nobody", "empty"],
)
def test_ties_and_silent_majorities_say_nothing(completions: tuple[str, ...]) -> None:
    assert vote(TaskGrader("chain"), *completions) == [None] * len(completions)


def test_one_vote_decides_where_it_is_alone() -> None:
    assert vote(TaskGrader("chain"), "#3") == [1.0]


class Frozen(ExactMatch):
    """Cannot read one of the answers, nor compare another."""

    def answer(self, completion: str) -> str | None:
        if "hard" in completion:
            raise TimeoutError
        return super().answer(completion)

    def equal(self, first: str, second: str) -> bool:
        if "odd" in (first, second):
            raise ChildDied("it ended")
        return super().equal(first, second)


def test_an_answer_that_fails_has_no_vote_and_is_a_fault() -> None:
    judged = MajorityVote(Frozen()).judge(of("1", "hard", "1", "hard"))
    assert [one.score for one in judged] == [1.0, None, 1.0, None]
    assert [one.fault for one in judged] == [None, "timeout", None, "timeout"]


def test_an_answer_that_cannot_be_compared_votes_for_itself() -> None:
    assert vote(Frozen(), "odd", "1", "odd", "1", "odd") == [1.0, 0.0, 1.0, 0.0, 1.0]


def test_a_hostile_answer_costs_its_own_row() -> None:
    grader = MathVerify(deadline=0.5)
    try:
        assert vote(grader, "\\boxed{2}", "\\boxed{9^{9^{9^{9}}}}", "\\boxed{2}", "\\boxed{3}") == [1.0, None, 1.0, 0.0]
    finally:
        grader.close()
