"""Any loss of preference pairs over pairs that the policy itself has sampled: online DPO (Guo et al. 2024, arXiv:2402.04792).

The weights are those of the loss; what differs is where its pairs come from, which `Needs.pairs` says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posttrain.algorithms.options import OnPreferences
    from posttrain.estimator import Algorithm


def sampled_pairs(algorithm: Algorithm, config: OnPreferences) -> Algorithm:
    """The algorithm of a config that has `pairs`, with rollouts in place of data."""
    import dataclasses

    from posttrain.estimator.needs import PairRule

    assert config.pairs is not None
    rule = PairRule(config.pairs.rule, config.pairs.at_most)
    needs = dataclasses.replace(
        algorithm.needs,
        pairs=rule,
        rollouts=config.rollouts,
        updates=config.updates,
        demonstration="row" if rule.given else "none",
    )
    return dataclasses.replace(algorithm, needs=needs)
