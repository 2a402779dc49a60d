"""Each rule says its sentence when its time has come, once, and nothing of runs that are as they should be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from posttrain.train.watch.rules import IN_A_ROW, all_rules

COLLECTION: dict[str, float] = {
    "reward/mean": 0.5,
    "reward/spread": 1.0,
    "rollout/length": 6.0,
    "rollout/length/max": 8.0,
    "rollout/cut_off": 0.1,
    "rollout/ungraded": 0.0,
    "rollout/failed_grades": 0.0,
    "rollout/equal_groups": 0.25,
    "rollout/taught": 0.5,
    "rollout/identical_groups": 0.1,
    "entropy": 1.5,
    "kl/sampler_trainer": 1e-4,
    "train/skipped_rows": 0.25,
    "train/left_out": 0.0,
    "grad_norm": 1.0,
    "learning_rate": 1e-5,
}
SHOWN: dict[str, float] = {
    "loss": 2.0,
    "train/demonstrated": 1.0,
    "grad_norm": 1.0,
    "learning_rate": 1e-5,
    "train/left_out": 0.0,
}


def told(steps: Iterable[dict[str, float]], *, whole: bool = True) -> dict[str, tuple[int, str]]:
    """Rule → step and sentence, of a run of these steps; or of one that has more to come."""
    seen, rules, said = list(steps), all_rules(), dict[str, tuple[int, str]]()
    for step, metrics in enumerate(seen, 1):
        for rule in rules:
            sentence = rule.look(step, metrics, last=whole and step == len(seen))
            if sentence is not None and rule.name not in said:
                said[rule.name] = step, sentence
    return said


LASTING = [
    ("rewards-never-vary", {"reward/spread": 0.0, "reward/mean": 0.0}, "every answer of steps 1 to 5 has 0"),
    ("no-signal", {"train/skipped_rows": 1.0, "rollout/equal_groups": 1.0}, "rewards are equal within each group"),
    ("nobody-taught", {"rollout/taught": 0.0}, "Nothing of steps 1 to 5 is learnt from the teacher: no answer has another"),
    ("no-signal", {"train/skipped_rows": 1.0, "rollout/taught": 0.0}, "which is all that is learnt from"),
    ("all-cut-off", {"rollout/cut_off": 0.97}, "97% of the answers of steps 1 to 5 were cut off, at 8 tokens"),
    ("answers-equal", {"rollout/identical_groups": 1.0}, "All answers to a question are the same"),
    ("ungraded", {"rollout/ungraded": 0.6}, "60% of the answers of steps 1 to 5 have no grade"),
    ("groups-never-fill", {"rollout/unfilled_groups": 0.5}, "50% of the groups of steps 1 to 5 have no signal"),
    ("no-gradient", {"grad_norm": 0.0}, "The gradient of steps 1 to 5 is 0"),
    ("no-rate", {"learning_rate": 0.0}, "The learning rate of steps 1 to 5 is 0"),
    ("kl-grows", {"kl/reference": 2.0}, "is 2 nats a token away from the reference"),
]


@pytest.mark.parametrize(("name", "changes", "says"), LASTING, ids=[case[0] for case in LASTING])
def test_what_lasts_is_told_after_five_in_a_row(name: str, changes: dict[str, float], says: str) -> None:
    bad = {**COLLECTION, **changes}
    assert told([bad] * (IN_A_ROW - 1), whole=False) == {}
    said = told([bad] * 20, whole=False)
    assert list(said) == [name] and said[name][0] == IN_A_ROW and says in said[name][1]
    good = {name: value for name, value in COLLECTION.items() if name not in changes} | {
        name: COLLECTION[name] for name in changes if name in COLLECTION
    }
    good |= {name: 0.0 for name in changes if name not in COLLECTION}
    assert told([*[bad] * 4, good] * 4) == {}
    assert list(told([bad] * 2)) == [name]  # all of a run that is short


@pytest.mark.parametrize(("name", "changes"), [(name, changes) for name, changes, _ in LASTING])
def test_a_run_that_ends_between_two_collections_is_told_of_the_one_before(name: str, changes: dict[str, float]) -> None:
    update = {"loss": 0.1, "grad_norm": changes.get("grad_norm", 1.0), "learning_rate": changes.get("learning_rate", 1e-5)}
    assert told([COLLECTION | changes, update])[name][0] == 2


def test_what_is_told_at_once() -> None:
    said = told(
        [COLLECTION, {**COLLECTION, "rollout/failed_grades": 0.01}, {**COLLECTION, "train/left_out": 1.0}, COLLECTION]
    )
    assert {name: step for name, (step, _) in said.items()} == {"reward-fails": 2, "step-left-out": 3}


def test_an_answer_of_one_token_is_not_cut_off() -> None:
    assert told([{**COLLECTION, "rollout/cut_off": 1.0, "rollout/length/max": 1.0}] * 9) == {}


def losses(*values: float) -> list[dict[str, Any]]:
    return [{**SHOWN, "loss": value} for value in values]


@pytest.mark.parametrize(
    ("values", "at"),
    [
        ([5.0 * 0.9**i for i in range(60)], None),
        ([2.0 + 0.3 * (i % 3) for i in range(60)], None),
        ([0.003 + 0.2 * (i % 7 == 0) for i in range(60)], None),
        ([*[2.0 + 0.1 * (i % 3) for i in range(30)], 9.0, 2.0], 31),
        ([4.0, 9000.0, 783699.0], 2),
        ([2.0, 3.0, 4.0], None),
    ],
    ids=["falls", "noisy", "near 0", "a spike", "a rate of 100", "rises a little"],
)
def test_a_loss_far_above_the_steps_before(values: list[float], at: int | None) -> None:
    said = told(losses(*values))
    assert {name: step for name, (step, _) in said.items()} == ({} if at is None else {"loss-spike": at})


def test_a_sampler_that_drifts_away() -> None:
    def gaps(*values: float) -> list[dict[str, float]]:
        return [{**COLLECTION, "kl/sampler_trainer": value} for value in values]

    assert told(gaps(*[0.1] * 5))["sampler-gap"][0] == 5
    assert told(gaps(*[1e-4] * 10, *[0.02] * 5))["sampler-gap"][0] == 15
    assert told(gaps(*[1e-12] * 10, *[1e-3] * 10)) == {}
    assert told(gaps(*[0.01] * 20)) == {}


def test_an_entropy_that_collapses_without_a_gain() -> None:
    open_, shut = {**COLLECTION, "reward/mean": 0.3}, {**COLLECTION, "entropy": 0.01, "reward/mean": 0.2}
    assert told([open_] * 6 + [shut] * 5)["entropy-collapse"][0] == 11
    assert told([open_] * 6 + [{**shut, "reward/mean": 0.9}] * 5) == {}
