"""Whether demonstrations are made less likely is what `Needs.unwanted` says, by which rows with labels are read."""

from __future__ import annotations

import pytest

from cases import differentiate, sample
from posttrain import Algorithm
from posttrain.algorithms import ALGORITHMS, example_values

OVER_ROWS = [
    one
    for config, one in zip(ALGORITHMS, example_values(), strict=True)
    if config.trains_on == "demonstrations" and one.needs.weight == "none"
]


@pytest.mark.parametrize("algorithm", OVER_ROWS, ids=[one.name for one in OVER_ROWS])
def test_the_likelihood_of_what_is_unwanted_falls_and_no_others(algorithm: Algorithm) -> None:
    drawn = sample(algorithm, units=9, width=6)
    slopes = differentiate(algorithm, algorithm.prepare(drawn.batch), drawn.inputs())[1]["logp"]
    sign = 1 if algorithm.needs.unwanted else -1
    assert (sign * slopes >= 0).all() and slopes.any(), algorithm.name


def test_those_that_lower_likelihoods_are_there() -> None:
    assert {one.name for one in OVER_ROWS if one.needs.unwanted} == {"ascent", "npo", "unlikelihood"}
