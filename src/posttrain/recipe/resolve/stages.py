"""Stages, each as a whole recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.recipe.resolve.merging import with_merged
from posttrain.recipe.resolve.named import name_of_stage
from posttrain.recipe.resolve.over import OF_THE_TASK, over
from posttrain.recipe.resolve.replay import with_replayed
from posttrain.recipe.resolve.rounds import plain_name, with_earlier_rounds
from posttrain.settings.data.writers import with_writers
from posttrain.settings.distributed import DistributedConfig

OF_ALL_STAGES = ("processes", "mode")
"""What a stage keeps of `distributed`: the processes are started once."""
ORIGINS = ("previous", "base")
"""Where a stage starts from, beside the names of stages."""
OF_ONE_STAGE = ("name", "model", "output_dir", "from", "merge", "round", "seed", "rounds")
Values = dict[str, Any]


def with_stages(values: Values) -> Values:
    """Each stage as a whole recipe: the top level's values with its own over them, one level deep.

    An algorithm with a name takes the place of the top level's; every stage but the first starts from the final model of
    the one before it, unless it says another. The top level itself becomes the last stage's, but for the model that it starts
    from.

    Raises:
        ValueError: a stage asks for other processes than the top level, starts from none of those before it, has the name of
            another, or a model of its own though it starts from another.
    """
    stages = values.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        return values
    base = {key: value for key, value in values.items() if key not in ("stages", "rounds")}
    whole: list[Values] = []
    for number, stage in enumerate(stages, 1):
        _check_processes(number, base.get("distributed"), stage.get("distributed"))
        merged = {**base, **{key: over(key, base.get(key), value) for key, value in stage.items()}}
        folders = {name: one["output_dir"] for one in whole for name in (one["name"], plain_name(one))}
        merged = with_writers(merged, number, folders)
        merged["name"] = _name(merged, number, [one["name"] for one in whole])
        if merged.get("merge") is None:
            merged = _with_model(merged, stage, base, whole, folders)
        else:
            merged = with_merged(merged, stage, base, whole, folders)
        merged["output_dir"] = f"{base.get('output_dir')}/{number}-{merged['name']}"
        merged = with_earlier_rounds(merged, whole, values.get("rounds"))
        whole.append(with_replayed(whole, merged))
    last = {key: value for key, value in whole[-1].items() if key not in OF_ONE_STAGE}
    return {**base, **last, **({"rounds": values["rounds"]} if "rounds" in values else {}), "stages": whole}


def _name(stage: Values, number: int, taken: Sequence[str]) -> Any:
    if "name" not in stage:
        return name_of_stage({"name": "merge"} if stage.get("merge") else stage.get("algorithm"), number, taken)
    if stage["name"] in ORIGINS:
        raise ValueError(f"stages.{number - 1}.name: {stage['name']} says where a stage starts from: take another name")
    if stage["name"] in taken:
        raise ValueError(f"stages.{number - 1}.name: another stage is called {stage['name']}: each is told by its name")
    return stage["name"]


def _with_model(merged: Values, stage: Values, base: Values, before: Sequence[Values], folders: Mapping[str, str]) -> Values:
    """A stage with the model that it starts from."""
    key, origin = f"stages.{len(before)}", merged.get("from", "previous")
    if not isinstance(merged.get("model"), dict) or not isinstance(origin, str):
        return merged
    if origin not in ORIGINS and origin not in folders:
        raise ValueError(
            f"{key}.from: {origin} is neither previous, base, nor a stage before ({', '.join(folders) or 'none'})"
        )
    if origin == "base" or (origin == "previous" and not before):
        scratch = merged["model"].get("from_scratch") is not None
        if before and scratch and merged.get("seed", 0) != base.get("seed", 0):
            raise ValueError(
                f"{key}.from: base is made from scratch by the seed, and another seed makes another model: train it in a run "
                "before this one, and give its final/ as model.name"
            )
        return merged
    own = stage.get("model") if "output_dir" not in stage else None  # one that is whole has what it was given
    if isinstance(own, dict) and (lost := [name for name in own if name not in OF_THE_TASK]):
        raise ValueError(
            f"{key}.model.{lost[0]}: this stage starts from the model that another has trained, as from: says, and takes "
            f"{', '.join(OF_THE_TASK)} alone"
        )
    kept = {name: value for name, value in merged["model"].items() if name in OF_THE_TASK}
    trained = before[-1]["output_dir"] if origin == "previous" else folders[origin]
    return {**merged, "model": {**kept, "name": f"{trained}/final"}}


def _check_processes(number: int, below: Any, above: Any) -> None:
    for name in OF_ALL_STAGES if isinstance(above, dict) else ():
        default = DistributedConfig.model_fields[name].default
        given = below.get(name, default) if isinstance(below, dict) else default
        if above.get(name, given) != given:
            raise ValueError(
                f"stages.{number - 1}.distributed.{name}: all stages run in the same processes: set it at the top level, "
                f"where it is {given}"
            )
