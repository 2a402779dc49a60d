"""The group's majority as its reference: votes by equivalence, ties and silent majorities say nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from posttrain import Group, MajorityVote
from posttrain.rewards.grading import ExactMatch, Grade, MathVerify, TaskGrader, Verdict


def vote(grader: object, *completions: str) -> list[float | None]:
    given = Group(
        completions=completions, tokens=[[1]] * len(completions), finished=[True] * len(completions), columns={"prompt": "q"}
    )
    return [one.score for one in MajorityVote(grader).judge(given)]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def mathematics() -> Iterator[MathVerify]:
    grader = MathVerify()
    yield grader
    grader.close()


def test_equal_answers_vote_together_however_they_are_written(mathematics: MathVerify) -> None:
    half = ("\\boxed{\\frac{1}{2}}", "so \\boxed{0.5}", "#### 1/2")
    assert vote(mathematics, "\\boxed{2}", *half, "\\boxed{2}") == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert vote(mathematics, "\\boxed{1,000}", "#### 1000", "\\boxed{3}") == [1.0, 1.0, 0.0]


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
    """Cannot read one of the answers."""

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        return Grade(Verdict.TIMEOUT, None) if "hard" in completion else super().grade(completion, prompt, answer)


def test_an_answer_that_fails_has_no_vote_and_is_a_fault() -> None:
    given = Group(completions=["1", "hard", "1", "hard"], tokens=[[1]] * 4, finished=[True] * 4, columns={"prompt": "q"})
    judged = MajorityVote(Frozen()).judge(given)
    assert [one.score for one in judged] == [1.0, None, 1.0, None]
    assert [one.fault for one in judged] == [None, "timeout", None, "timeout"]


def test_a_hostile_answer_costs_its_own_row() -> None:
    grader = MathVerify(deadline=0.5)
    try:
        assert vote(grader, "\\boxed{2}", "\\boxed{9^{9^{9^{9}}}}", "\\boxed{2}", "\\boxed{3}") == [1.0, None, 1.0, 0.0]
    finally:
        grader.close()
