"""Rounds: the stages of a recipe, or all of it, several times over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from posttrain.recipe.resolve.named import name_of_stage
from posttrain.recipe.resolve.over import over
from posttrain.settings.base import Config
from posttrain.settings.data.writers import PREVIOUS, collected_in

MOST = 1000  # rounds of a run: more are a slip
SEEDS = 2**32
MAKING = ("generate", "rejection_sampling")
"""Steps of `data.collect` that make rows."""
Values = dict[str, Any]


class Rounds(Config):
    """The stages again and again, or where there are none the whole recipe: STaR, RAFT, self-improvement, iterated DPO.

    Each round is a number of stages, and has the recipe's seed and one more for each round before it.
    """

    times: Annotated[int, Field(ge=1, le=MOST)]
    """How many."""
    origin: Annotated[Literal["previous", "base"], Field(alias="from")] = "previous"
    """What a round begins with: the model that the round before has trained, or base, the one that the first began with."""
    data: Literal["new", "accumulate"] = "new"
    """accumulate: beside the rows that a round's data.collect makes, those that it made in the rounds before, each once."""

    @property
    def told(self) -> str:
        """For people."""
        begins = "the model that the one before it has trained" if self.origin == "previous" else "the model of the first"
        rows = ", and on what rounds before it have made" if self.data == "accumulate" else ""
        return f"{self.times}, each from {begins}{rows}; the first of them is told here"


def with_rounds(values: Values) -> Values:
    """The same with the stages of every round, one after another.

    Raises:
        ValueError: nothing of a round would be left for the next, there is nothing to be accumulated, or a stage says which
            round it is of.
    """
    given, stages = values.get("rounds"), values.get("stages") or [{}]
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return values
    for number, stage in enumerate(stages):
        if "round" in stage and "output_dir" not in stage:  # one that is whole has both
            raise ValueError(f"stages.{number}.round: it is filled in where rounds: {{times: …}} says how many: leave it out")
    if not isinstance(given, dict) or any("round" in stage for stage in stages):
        return values
    try:
        rounds = Rounds.model_validate(given)
    except ValidationError:  # the checks will say so
        return values
    _check(rounds, values, stages)
    names = _names(values, stages)
    seed = values.get("seed", 0)
    repeated: list[Values] = []
    for number in range(1, rounds.times + 1):
        for place, (stage, name) in enumerate(zip(stages, names, strict=True)):
            own = {**stage, "round": number, "name": f"round{number}" if name is None else f"round{number}-{name}"}
            if type(own.get("seed", seed)) is int:
                own["seed"] = (own.get("seed", seed) + number - 1) % SEEDS
            if not place and number > 1:
                own["from"] = rounds.origin
            repeated.append(own)
    return {**values, "stages": repeated}


def _names(values: Values, stages: Sequence[Values]) -> list[Any]:
    """Of each stage in a round; None, where a round is one."""
    names: list[Any] = []
    for number, stage in enumerate(stages if values.get("stages") else (), 1):
        algorithm = over("algorithm", values.get("algorithm"), stage.get("algorithm", {}))
        algorithm = {"name": "merge"} if stage.get("merge") else algorithm
        names.append(stage.get("name") or name_of_stage(algorithm, number, names))
    return names or [None]


def _check(rounds: Rounds, values: Values, stages: Sequence[Values]) -> None:
    if stages[0].get("from", "previous") != "previous":
        raise ValueError("stages.0.from: what a round begins with is said once: rounds: {from: …}")
    steps = [
        step for stage in stages for step in collected_in(over("data", values.get("data"), stage.get("data", {}))).values()
    ]
    if rounds.data == "accumulate" and not any(step.get(name) for step in steps for name in MAKING):
        raise ValueError(
            "rounds.data: accumulate keeps the rows that rounds make, and none makes any: add data.collect: [{generate: …}], "
            "or rejection_sampling"
        )
    writers = [step["generate"].get("writer") for step in steps if isinstance(step.get("generate"), dict)]
    if rounds.times > 1 and rounds.origin == "base" and rounds.data == "new" and PREVIOUS not in writers:
        raise ValueError(
            "rounds.from: base begins anew each time, and nothing would be left of the round before: let its model write, "
            "data.collect: [{generate: {writer: previous, …}}], or set rounds.data: accumulate"
        )


def plain_name(stage: Values) -> str:
    """A stage's name, without the round that it is of."""
    return str(stage["name"]).removeprefix(f"round{stage.get('round')}-")


def with_earlier_rounds(stage: Values, before: Sequence[Values], rounds: Any) -> Values:
    """A stage with the folders of the same stage in the rounds before it, where what they made is kept."""
    data = stage.get("data")
    keeps = isinstance(rounds, dict) and rounds.get("data") == "accumulate"
    if not keeps or not isinstance(data, dict) or not collected_in(data):
        return stage
    same = [one for one in before if one.get("round") is not None and _place(one) == _place(stage)]
    return {**stage, "data": {**data, "earlier_rounds": [one["output_dir"] for one in same]}}


def _place(stage: Values) -> str:
    return "" if stage["name"] == f"round{stage['round']}" else plain_name(stage)
