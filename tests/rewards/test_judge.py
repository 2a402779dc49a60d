"""A reward that misbehaves costs its rows, never the run; and a run whose rewards fail too often ends with exit code 7."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import Batch, Group, Judgement, RewardError, Weighted, build_algorithm
from posttrain.rewards.error_rate import WINDOW, ErrorRate
from posttrain.rewards.judge import Judges, guarded
from posttrain.rewards.rewarded import Rewarded
from posttrain.rewards.values import LONGEST_FAULT, MAX_SCORE, MAX_WEIGHT

ROWS = 4


def group(rows: int = ROWS) -> Group:
    return Group(
        completions=["text"] * rows, tokens=[[1, 2]] * rows, finished=[True] * rows, columns={"prompt": "q", "answer": "1"}
    )


class Returns:
    """A reward made of what `judge` does."""

    def __init__(self, does: Callable[[Group], Any], name: str = "odd") -> None:
        self.name, self._does = name, does

    def judge(self, group: Group) -> Any:
        return self._does(group)

    def close(self) -> None:
        pass


def raising(error: BaseException) -> Callable[[Group], Any]:
    def judge(group: Group) -> Any:
        raise error

    return judge


def generating(group: Group) -> Iterator[Any]:
    yield 1.0
    raise RuntimeError("in the middle")


class Unprintable:
    def __float__(self) -> float:
        raise RuntimeError("no number")


class Wordless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


FAULTS: dict[str, tuple[Callable[[Group], Any], str]] = {
    "raises": (raising(ZeroDivisionError("division by zero")), "raised ZeroDivisionError: division by zero"),
    "exits": (raising(SystemExit(3)), "raised SystemExit: 3"),
    "interrupts": (raising(KeyboardInterrupt()), "raised KeyboardInterrupt"),
    "memory": (raising(MemoryError()), "raised MemoryError"),
    "none": (lambda group: None, "raised TypeError"),
    "a number": (lambda group: 1.0, "raised TypeError"),
    "too few": (lambda group: [1.0] * 3, "gave 3 judgements for 4 completions"),
    "too many": (lambda group: [1.0] * 5, "gave 5 judgements for 4 completions"),
    "empty": (lambda group: [], "gave 0 judgements"),
    "generator": (generating, "raised RuntimeError: in the middle"),
    "nan": (lambda group: [math.nan] * 4, "gave nan as a score"),
    "infinity": (lambda group: [-math.inf] * 4, "gave -inf as a score"),
    "nan of numpy": (lambda group: np.full(4, np.nan), "gave nan as a score"),
    "text": (lambda group: ["high"] * 4, "gave str as a score"),
    "lists": (lambda group: [[1.0]] * 4, "gave list as a score"),
    "vectors": (lambda group: torch.ones(4, 2), "gave Tensor as a score"),
    "objects": (lambda group: [Unprintable()] * 4, "gave Unprintable as a score"),
    "nan in a judgement": (lambda group: [Judgement(math.nan, True)] * 4, "gave nan as a score"),
    "numeric text": (lambda group: ["1"] * 4, "gave str as a score"),
    "one text": (lambda group: "1010", "gave str, not a list"),
    "by row": (lambda group: dict.fromkeys(range(4), 0.5), "gave dict, not a list"),
    "an integer without end": (lambda group: [10**400] * 4, "gave int as a score"),
    "huge": (lambda group: [1e308] * 4, "gave 1e+308 as a score, where a number from -1e+06 to 1e+06 is expected"),
    "a bit too large": (lambda group: [-1.1e6] * 4, "gave -1.1e+06 as a score"),
    "a verdict of many": (lambda group: [Judgement(1.0, torch.ones(2))] * 4, "raised RuntimeError: Boolean value"),  # type: ignore[arg-type]
    "an exception without words": (raising(Wordless()), "raised Wordless: its message cannot be read"),
    "a flood of words": (raising(ValueError("x" * 3_000_000)), "raised ValueError: xxx"),
    "a fault of objects": (lambda group: [Judgement(None, fault=["x"])] * 4, "['x']"),  # type: ignore[arg-type]
    "changes completions": (lambda group: group.completions.clear(), "raised AttributeError"),  # type: ignore[attr-defined]
    "says so": (lambda group: [Judgement.failed("timeout")] * 4, "timeout"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_and_the_other_rewards_are_heard(name: str) -> None:
    does, says = FAULTS[name]
    rewarded = Judges([Weighted(Returns(does)), Weighted(Returns(lambda group: [0.5] * 4, "good"), 2.0)]).judge(group())
    assert all(fault is not None and fault.startswith(says) for fault in rewarded.faults["odd"])
    assert all(fault is not None and len(fault) <= LONGEST_FAULT for fault in rewarded.faults["odd"])
    assert rewarded.faults["good"] == (None,) * 4 and rewarded.by_name["good"].tolist() == [0.5] * 4
    assert not rewarded.graded.any() and rewarded.total.isfinite().all()


GOOD: dict[str, Any] = {
    "floats": [0.0, 1.0, 0.5, -1.0],
    "bools": [False, True, True, False],
    "numpy": np.array([0.0, 1.0, 0.5, -1.0], np.float32),
    "numpy bools": np.array([False, True, True, False]),
    "integers": [0, 1, 2, 3],
    "tensor": torch.tensor([0.0, 1.0, 0.5, -1.0]),
    "tensor of bool": torch.tensor([True, False, True, False]),
    "judgements": [Judgement(0.0), Judgement(np.float64(1.0)), Judgement(True), Judgement(-1)],  # type: ignore[arg-type]
    "tuple": (0.0, 1.0, 0.5, -1.0),
}


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_of_number_is_a_score(name: str) -> None:
    rewarded = Judges([Weighted(Returns(lambda group: GOOD[name]), -2.0)]).judge(group())
    expected = [float(getattr(one, "score", one)) for one in GOOD[name]]
    assert rewarded.by_name["odd"].tolist() == pytest.approx(expected)
    assert rewarded.total.tolist() == pytest.approx([-2 * one for one in expected])
    assert rewarded.graded.all() and rewarded.faults["odd"] == (None,) * 4
    assert all(type(score) is float for score in rewarded.by_name["odd"].tolist())


def test_the_largest_scores_and_weights_make_a_finite_sum() -> None:
    entries = [Weighted(Returns(lambda group: [MAX_SCORE] * 4, name), MAX_WEIGHT) for name in "abc"]
    total = Judges(entries).judge(group()).total.float()
    assert total.isfinite().all() and total.square().sum().isfinite()
    for weight in (math.nan, math.inf, 1e7):
        with pytest.raises(ValueError, match="weight: "):
            Weighted(entries[0].reward, weight)


def test_a_reward_cannot_change_what_the_others_and_the_run_see() -> None:
    def changes(group: Group) -> list[float]:
        columns: Any = group.columns
        columns["nested"].append(2)
        columns.clear()
        return [1.0] * 4

    def looks(group: Group) -> list[float]:
        return [float(group.columns["nested"] == [1])] * 4

    given = Group(completions=["a"] * 4, tokens=[[1]] * 4, finished=[True] * 4, columns={"prompt": "q", "nested": [1]})
    rewarded = Judges([Weighted(Returns(changes)), Weighted(Returns(looks, "other"))]).judge(given)
    assert rewarded.graded.all() and rewarded.total.tolist() == [2.0] * 4
    assert given.columns == {"prompt": "q", "nested": [1]}


def test_what_a_judgement_says_besides_its_score_is_made_plain() -> None:
    says: Any = [Judgement(1.0, np.bool_(True), ["a"]), Judgement(None, False, 5), Judgement(1.0, None, "\ud800"), 1.0]  # type: ignore[arg-type]
    rewarded = Judges([Weighted(Returns(lambda group: says), verdict=True)]).judge(group())
    assert rewarded.answers == ("['a']", "5", "?", None) and rewarded.faults["odd"] == (None,) * 4
    assert rewarded.correct is not None and rewarded.correct.tolist() == [True, False, False, False]
    assert rewarded.known.tolist() == [True, True, False, False]


def test_a_verdict_that_reads_no_answer_leaves_that_of_the_others() -> None:
    reads = Weighted(Returns(lambda group: [Judgement(1.0, answer="a")] * 4, "reads"))
    verdict = Weighted(Returns(lambda group: [Judgement(1.0, True)] * 4), verdict=True)
    for entries in ([reads, verdict], [verdict, reads]):
        assert Judges(entries).judge(group()).answers == ("a",) * 4


def test_none_takes_a_row_out_without_being_a_fault() -> None:
    rewarded = Judges([Weighted(Returns(lambda group: [None, 1.0, 0.0, Judgement(None)]))]).judge(group())
    assert rewarded.graded.tolist() == [False, True, True, False]
    assert rewarded.faults["odd"] == (None,) * 4


def test_a_reward_of_weight_0_only_watches() -> None:
    broken = Weighted(Returns(FAULTS["raises"][0]), weight=0.0, verdict=True)
    rewarded = Judges([Weighted(Returns(lambda group: [1.0] * 4, "good")), broken]).judge(group())
    assert rewarded.graded.all() and rewarded.total.tolist() == [1.0] * 4
    assert rewarded.correct is not None and not rewarded.known.any()


def test_groups_are_judged_in_turn_by_one_thread_and_a_fault_is_its_own_groups() -> None:
    threads = set[int]()

    def judges(group: Group) -> list[float]:
        threads.add(threading.get_ident())
        return [1.0] * (3 if len(group.completions) == 2 else len(group.completions))

    judged, thread = guarded(Returns(judges), [group(rows) for rows in (4, 2, 0, 3)], deadline=60)
    assert [[one.score for one in rows] for rows in judged] == [[1.0] * 4, [None] * 2, [], [1.0] * 3]
    assert judged[1][0].fault == "gave 3 judgements for 2 completions"
    assert len(threads) == 1 and not thread.is_alive()


def test_a_deadline_is_each_groups_and_after_a_group_that_hangs_none_is_judged() -> None:
    release, calls = threading.Event(), list[int]()

    def hangs_at_the_fourth(group: Group) -> list[float]:
        calls.append(len(calls))
        time.sleep(0.7)
        if len(calls) == 4:
            release.wait()
        return [1.0] * len(group.completions)

    judged, thread = guarded(Returns(hangs_at_the_fourth), [group(1)] * 6, deadline=2.0)
    assert [one.fault for [one] in judged] == [None] * 3 + ["timeout"] * 3
    assert thread.is_alive()
    release.set()
    thread.join()
    assert calls == [0, 1, 2, 3]


def test_a_reward_that_hangs_is_left_behind_and_not_called_again_while_it_does() -> None:
    release, calls = threading.Event(), list[threading.Thread]()

    def hangs(group: Group) -> list[float]:
        calls.append(threading.current_thread())
        release.wait()
        return [1.0] * 4

    judges = Judges([Weighted(Returns(hangs), deadline=1.0), Weighted(Returns(lambda group: [1.0] * 4, "good"))])
    for _ in range(3):
        rewarded = judges.judge(group())
        assert rewarded.faults["odd"] == ("timeout",) * 4 and rewarded.faults["good"] == (None,) * 4
    assert len(calls) == 1
    release.set()
    calls[0].join()
    assert judges.judge(group()).graded.all() and len(calls) == 2


def failing(rows: int, failed: int) -> Rewarded:
    scores = iter([None if i < failed else 1.0 for i in range(rows)])
    return Judges([Weighted(Returns(lambda group: [Judgement.failed("crash") if s is None else s for s in scores]))]).judge(
        group(rows)
    )


@pytest.mark.parametrize(
    ("rows", "failed", "ends"), [(5, 5, True), (8, 2, False), (100, 20, False), (100, 35, True), (1, 1, False)]
)
def test_few_rows_prove_little(rows: int, failed: int, ends: bool) -> None:
    rate = ErrorRate([Weighted(Returns(lambda group: []))])
    if not ends:
        rate.add(failing(rows, failed))
        return
    with pytest.raises(RewardError, match=f"odd failed on {failed} of the last {rows} completions.*{failed} × crash") as over:
        rate.add(failing(rows, failed))
    assert over.value.exit_code == 7


@pytest.mark.parametrize(("allowed", "ends"), [(0.0, True), (0.05, True), (0.2, False), (1.0, False)])
def test_the_rate_is_of_the_latest_rows(allowed: float, ends: bool) -> None:
    def add_all() -> None:
        rate = ErrorRate([Weighted(Returns(lambda group: []), max_error_rate=allowed)])
        for _ in range(60):
            rate.add(failing(40, 4))

    if ends:
        with pytest.raises(RewardError):
            add_all()
    else:
        add_all()


def test_a_reward_that_breaks_late_is_found_soon() -> None:
    rate = ErrorRate([Weighted(Returns(lambda group: []))])
    for _ in range(100):
        rate.add(failing(128, 0))
    with pytest.raises(RewardError):
        for _ in range(WINDOW // 2 // 128):
            rate.add(failing(128, 128))


def test_with_a_tenth_of_the_grades_failing_the_baseline_is_that_of_the_others() -> None:
    """Each group's mean is over graded rows, and a failed row is in no N."""
    scores: Sequence[float | None] = [1.0, 0.0, None, 0.0, 1.0, 1.0, 0.0, None, 0.0, 1.0]
    entry = Weighted(Returns(lambda group: [Judgement.failed("crash") if s is None else s for s in scores]))
    rewarded = Judges([entry]).judge(group(10))
    mask = torch.ones(10, 3, dtype=torch.bool)
    batch = Batch(loss_mask=mask, group=torch.arange(10) // 5, reward=rewarded.total, reward_mask=rewarded.graded)
    prepared = build_algorithm("dr_grpo", rollouts=5, max_tokens=3).prepare(batch)
    assert prepared.advantage is not None
    means = [2 / 4, 2 / 4]
    expected = [s - means[i // 5] for i, s in enumerate(scores) if s is not None]
    assert prepared.advantage[prepared.loss_mask.any(-1), 0].tolist() == pytest.approx(expected)
    assert prepared.loss_mask.any(-1).tolist() == [s is not None for s in scores]
