"""What the turns of episodes are paid, token by token, and the credit that is made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from posttrain.environments.options import EnvironmentConfig
from posttrain.errors import RecipeError
from posttrain.estimator.algorithm import Algorithm, describe
from posttrain.estimator.parts.credit.turns import by_turns
from posttrain.train.collect.episodes.episode import Episode


def credited(algorithm: Algorithm, environment: EnvironmentConfig | None) -> Algorithm:
    """The algorithm with the credit that the environment's section asks for.

    Raises:
        RecipeError: its credit has no form for turns.
    """
    if environment is None or environment.credit == "outcome":
        return algorithm
    credit = by_turns(algorithm.credit, environment.gamma)
    if credit is None:
        raise RecipeError(
            f"environment.credit: returns are compared with a group's mean, or with the mean of the others, and "
            f"{algorithm.name} makes its credit by {describe(algorithm.credit)}: take grpo, dr_grpo, dapo or rloo, or "
            "credit: outcome"
        )
    return dataclasses.replace(algorithm, credit=credit, needs=dataclasses.replace(algorithm.needs, turns=True))


def turn_fields(episodes: Sequence[Episode], weight: float) -> dict[str, Tensor]:
    """Batch.turn and Batch.token_reward of these rows, end to end; `weight` is what the pay of a turn counts."""
    turn, paid = list[np.ndarray](), list[np.ndarray]()
    for one in episodes:
        parts = [(k, len(played.ids), len(played.glue), played.step.reward) for k, played in enumerate(one.played, 1)]
        if not any(own + glue for _, own, glue, _ in parts):
            parts = [(0, 1, 0, None)]
        for k, own, glue, reward in parts:
            turn.append(np.repeat([k, 0], [own, glue]).astype(np.int32))
            given = np.zeros(own + glue)
            if own and reward is not None:
                given[own - 1] = weight * reward
            paid.append(given)
    return {"turn": torch.from_numpy(np.concatenate(turn)), "token_reward": torch.from_numpy(np.concatenate(paid))}
