"""What a run carries from one collection to the next, and from one turn to the next, for its plan."""

from __future__ import annotations

from typing import Any

from posttrain.environments.options import EnvironmentConfig
from posttrain.estimator.algorithm import Algorithm
from posttrain.estimator.needs import Needs
from posttrain.recipe import Recipe
from posttrain.recipe.code import jails
from posttrain.rewards.make import named
from posttrain.rewards.options import Judged
from posttrain.train.collect.over.replay import check_replay, replayed


def played(environment: EnvironmentConfig | None) -> dict[str, Any]:
    """What a recipe's environment may do to an episode, where it has one: the tokens of an answer are then all of its own."""
    if environment is None:
        return {}
    said = f", each answered by at most {environment.observation_tokens} tokens"
    return {"environment": f"{environment.label}: at most {environment.max_turns} turns{said}"}


def over_steps(recipe: Recipe, needs: Needs) -> dict[str, Any]:
    """Where programs of the policy run, how the reference follows it, when demonstrations that wait are trained on, and which
    rollouts come back, as far as there are such.
    """
    moves, buffer, rows = recipe.model.reference, needs.buffer, dict[str, Any]()
    rows |= {f"programs of {name} run in": f"the jail {level}" for name, level in jails(recipe).items()}
    if moves.refresh:
        rows["the reference follows"] = f"{moves.mix:g} of the policy every {moves.refresh} steps"
    if buffer is not None:
        how = "in a step more, one of the steps below" if buffer.step == "own" else "within the step on rollouts"
        rows["demonstrations of unsolved questions"] = f"{buffer.size} at a time, the {buffer.order} first, {how}"
    if recipe.rollout is not None and (replay := recipe.rollout.replay) is not None:
        count = replayed(replay, _questions(recipe))
        right = "questions with right and wrong rollouts, of which the right ones carry loss"
        what = right if replay.filter == "right" else "questions"
        rows["rollouts of before"] = f"of up to {count} questions more a step, from the {replay.size} latest {what}"
        rows["not watched"] = "sampler-gap, where a step has rollouts of before: they are of older weights by intent"
    return rows


def check_stored(recipe: Recipe, algorithm: Algorithm) -> None:
    """Refuses rollouts of before where the algorithm would be wrong of them.

    Raises:
        RecipeError: says why.
    """
    if recipe.rollout is not None and (replay := recipe.rollout.replay) is not None:
        rewards = named(recipe.rewards, Judged(recipe.data.judged, recipe.rollout.max_tokens))
        verdict, options = any(reward.verdict for reward in rewards), type(recipe.algorithm).model_fields
        check_replay(algorithm, replay, questions=_questions(recipe), verdict=verdict, options=options)


def _questions(recipe: Recipe) -> int:
    assert recipe.rollout is not None
    return recipe.training.rows // recipe.rollout.n
