"""Paired tests of two runs' scores."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from posttrain.execution.study.paired import compared, holm, paired
from posttrain.telling import hearing


def test_a_pair_by_hand() -> None:
    """Five problems: all 2^5 flips, and McNemar's exact test over those that differ."""
    one, other = [1.0, 1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 1.0, 1.0]
    found = paired(one, other)
    assert (found.won, found.tied, found.lost, found.problems) == (3, 1, 1, 5)
    assert found.difference == pytest.approx(0.4) and found.low < 0.4 < found.high
    flips = [abs(sum(signs)) >= 2 for signs in product((-1, 1), repeat=4)]
    assert found.p == pytest.approx(sum(flips) / len(flips))
    assert found.mcnemar == pytest.approx(2 * (1 + 4) / 16)
    assert paired([0.5, 1.0], [0.25, 1.0]).mcnemar is None
    assert paired(other, one).difference == pytest.approx(-0.4)


def test_runs_that_are_alike_are_no_news() -> None:
    found = paired([1.0, 0.0, 1.0], [1.0, 0.0, 1.0])
    assert (found.difference, found.p, found.mcnemar) == (0, 1, 1)
    assert -found.low == found.high == pytest.approx(1.96**2 / (3 + 1.96**2), abs=1e-4)


def tango(won: int, lost: int, problems: int, difference: float) -> float:
    """The score of a difference of paired proportions, which is normal (Tango 1998, equations 22 to 25)."""
    b = -won - lost + (2 * problems - won + lost) * difference
    least = ((b * b + 8 * problems * lost * difference * (1 - difference)) ** 0.5 - b) / (4 * problems)
    return (won - lost - problems * difference) / (problems * (2 * least + difference * (1 - difference))) ** 0.5


@pytest.mark.parametrize("n", [1, 5, 48, 1000])
def test_where_all_differ_alike_the_interval_is_the_score_interval_and_not_a_point(n: int) -> None:
    z = stats.norm.ppf(0.975)
    alike, better, worse, half = (
        paired([one] * n, [other] * n, resamples=9) for one, other in ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (1.0, 0.5))
    )
    assert tango(0, 0, n, alike.high) == pytest.approx(-z) and alike.low == -alike.high
    assert tango(n, 0, n, better.low) == pytest.approx(z) and better.high == 1
    assert (worse.low, worse.high) == (-1, pytest.approx(-better.low))
    assert half.low < half.difference == 0.5 < half.high <= 1, "what is no verdict may be any other gap"


def test_p_is_uniform_where_both_are_alike() -> None:
    """Over 500 draws, by Kolmogorov and Smirnov; scores are continuous, so that p is nearly so."""
    rng = np.random.default_rng(0)
    draws = [paired(*rng.random((2, 24)).tolist(), resamples=199, seed=number).p for number in range(500)]
    assert stats.kstest(draws, "uniform").pvalue > 0.01
    assert 0.03 <= np.mean(np.array(draws) <= 0.05) <= 0.08


def test_a_shift_of_a_tenth_is_found_in_a_thousand() -> None:
    rng = np.random.default_rng(1)
    one, other = ((rng.random(1000) < share).astype(float).tolist() for share in (0.6, 0.5))
    found = paired(one, other, resamples=999)
    assert found.p < 0.01 and found.mcnemar is not None and found.mcnemar < 0.01
    assert 0 < found.low < found.difference < found.high


def test_holm_is_never_below_p_and_keeps_its_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    ps = np.random.default_rng(2).random(20).tolist()
    corrected = holm(ps)
    assert all(after >= before for before, after in zip(ps, corrected, strict=True)) and max(corrected) <= 1
    assert holm([]) == []


def run(folder: Path, answers: dict[str, str]) -> Path:
    """A run's folder with the answers of its last evaluation: by problem, a letter for each, r, w or t (timeout)."""
    kinds = {"r": "right", "w": "wrong", "t": "timeout"}
    rows = [{"where": where, "verdict": kinds[one]} for where, letters in answers.items() for one in letters]
    (folder / "completions").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("{}")
    for step, lines in ((0, []), (7, rows)):
        path = folder / "completions" / f"eval-test-step-{step:06d}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_are_held_against_each_other_by_their_answers(tmp_path: Path) -> None:
    one = run(tmp_path / "one", {"1": "rr", "2": "rw", "3": "tt", "4": "rt"})
    other = run(tmp_path / "other", {"1": "ww", "2": "wr", "4": "rr", "5": "rr"})
    with hearing() as heard:
        [(key, found)] = compared({"one": one, "other": other}).items()
    assert key == ("test", "one", "other") and (found.won, found.tied, found.lost) == (1, 2, 0)
    assert found.difference == pytest.approx(1 / 3) and found.holm == found.p
    assert [told.sentence for told in heard] == ["test: 1 problems that one or other alone has an answer to are left out."]
