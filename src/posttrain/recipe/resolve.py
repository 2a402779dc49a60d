"""What a recipe's values say of each other, before they are checked: stages over the top level, what follows from `rollout`,
and one key by two names. Values of the wrong type are left as they are, for the checks to name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.algorithms import KIND
from posttrain.algorithms.options import AlgorithmConfig
from posttrain.rewards.kinds import AnyReward
from posttrain.settings.data.writers import collected_in, with_steps, with_writers
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.doors.code import object_name
from posttrain.settings.doors.door import Door
from posttrain.settings.rollout import RolloutConfig, Sampled

OF_THE_TASK = ("dtype", "compute", "attn_implementation", "adapter", "reference", "teachers")
"""What a later stage keeps of the top level's `model`; the model itself is the one that the stage before it trained."""
OF_ALL_STAGES = ("processes", "mode")
"""What a stage keeps of `distributed`: the processes are started once."""


def with_stages(values: dict[str, Any]) -> dict[str, Any]:
    """Each stage as a whole recipe: the top level's values with its own over them, one level deep.

    An algorithm with a name takes the place of the top level's; every stage but the first starts from the final model of
    the one before it. The top level itself becomes the last stage's, but for the model that it starts from.

    Raises:
        ValueError: a stage asks for other processes than the top level.
    """
    stages = values.get("stages")
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) for stage in stages):
        return values
    base = {key: value for key, value in values.items() if key != "stages"}
    whole: list[dict[str, Any]] = []
    for number, stage in enumerate(stages, 1):
        _check_processes(number, base.get("distributed"), stage.get("distributed"))
        merged = {**base, **{key: over(key, base.get(key), value) for key, value in stage.items()}}
        merged = with_writers(merged, number, {one["name"]: one["output_dir"] for one in whole})
        merged.setdefault("name", _label(merged.get("algorithm")) or f"stage{number}")
        if whole and isinstance(merged.get("model"), dict):
            kept = {key: value for key, value in merged["model"].items() if key in OF_THE_TASK}
            merged["model"] = {**kept, "name": f"{whole[-1]['output_dir']}/final"}
        merged["output_dir"] = f"{base.get('output_dir')}/{number}-{merged['name']}"
        whole.append(_with_replayed(whole, merged))
    last = {key: value for key, value in whole[-1].items() if key not in ("name", "model", "output_dir")}
    return {**base, **last, "stages": whole}


def _with_replayed(before: Sequence[dict[str, Any]], stage: dict[str, Any]) -> dict[str, Any]:
    """A stage that replays earlier ones with what those were trained on.

    Raises:
        ValueError: there are none, or none of that name, or they read other rows.
    """
    data = stage.get("data")
    replay = data.get("replay") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(replay, dict):
        return stage
    key = f"stages.{len(before)}.data.replay"
    if not before:
        raise ValueError(f"{key}: there is nothing to replay in the first stage: give it to later ones alone")
    folders = {f"{number}-{one['name']}": one for number, one in enumerate(before, 1)}
    asked = replay.get("of", "all")
    if asked == []:
        raise ValueError(f"{key}: of names no stage: leave it out for all that came before")
    for name in asked if isinstance(asked, list) else ():
        if not any(name in (folder, one["name"]) for folder, one in folders.items()):
            raise ValueError(f"{key}: {name} is no earlier stage ({', '.join(folders)})")
    chosen = {
        folder: one
        for folder, one in folders.items()
        if not isinstance(asked, list) or folder in asked or one["name"] in asked
    }
    for folder, one in chosen.items():
        then, now = _read_as(one), _read_as(stage)
        if then and now and then != now:
            raise ValueError(f"{key}: stage {folder} is trained on {then}, and this one on {now}: leave it out of `of`")
        if isinstance(one.get("data"), dict) and one["data"].get("collect"):
            raise ValueError(f"{key}: stage {folder} is trained on what data.collect makes, which is no source: leave it out")
    given = {folder: one["data"] for folder, one in chosen.items() if isinstance(one.get("data"), dict)}
    sources = {folder: {name: of.get(name) for name in ("train", "eval_share")} for folder, of in given.items()}
    return {**stage, "data": {**data, "replay": {**replay, "sources": sources}}}


def _read_as(stage: dict[str, Any]) -> str | None:
    """What kind of rows a stage reads, as far as it can be told."""
    config, rollout = _config(stage.get("algorithm")), stage.get("rollout")
    if config is None:
        return None
    sampled = config.trains_on == "rollouts" or (isinstance(rollout, dict) and rollout.get("pairs") is not None)
    return "questions" if sampled else config.trains_on


def is_in_vain(values: dict[str, Any], keys: Sequence[str]) -> bool:
    """Whether every stage has a value of its own in place of the one at the top level that `keys` lead to."""
    stages, (key, *below) = values.get("stages"), keys
    if not isinstance(stages, list) or not stages or not all(isinstance(stage, dict) and key in stage for stage in stages):
        return False
    return all(_takes_the_place(key, below, stage[key]) for stage in stages)


def _takes_the_place(key: str, below: Sequence[str], own: Any) -> bool:
    if not isinstance(own, dict) or (key == "algorithm" and "name" in own):
        return True
    return bool(below) and below[0] in own


def _check_processes(number: int, below: Any, above: Any) -> None:
    for name in OF_ALL_STAGES if isinstance(above, dict) else ():
        default = DistributedConfig.model_fields[name].default
        given = below.get(name, default) if isinstance(below, dict) else default
        if above.get(name, given) != given:
            raise ValueError(
                f"stages.{number - 1}.distributed.{name}: all stages run in the same processes: set it at the top level, "
                f"where it is {given}"
            )


def over(key: str, below: Any, above: Any) -> Any:
    """A key's value over another's, one level deep; an algorithm with a name is whole."""
    if not isinstance(below, dict) or not isinstance(above, dict) or (key == "algorithm" and "name" in above):
        return above
    return {**below, **above}


def _label(algorithm: Any) -> str | None:
    """What the algorithm is called, as far as it can be told."""
    config = _config(algorithm)
    if config is not None and issubclass(config, Door) and not config.trusted and isinstance(algorithm.get("path"), str):
        return object_name(algorithm["path"])
    return algorithm.get("name") if isinstance(algorithm, dict) else None


def _config(algorithm: Any) -> type[AlgorithmConfig] | None:
    name = algorithm.get("name") if isinstance(algorithm, dict) else None
    try:
        return KIND.find(name) if isinstance(name, str) else None
    except ValueError:  # the checks will say so
        return None


def with_compute(values: dict[str, Any]) -> dict[str, Any]:
    """`training.bf16` as `model.compute`, whose alias it is; that of float64 has none.

    Raises:
        ValueError: both are given, and differ.
    """
    model, training = values.get("model"), values.get("training")
    if not isinstance(model, dict) or not isinstance(training, dict) or not isinstance(training.get("bf16"), bool):
        return values
    meant = "bfloat16" if training["bf16"] else "float32"
    if (given := model.get("compute")) not in (None, meant):
        raise ValueError(f"training.bf16: it is another name of model.compute, which is {given}: leave one of them out")
    plain = model.get("dtype") == "float64" and meant == "float32"
    training = {key: value for key, value in training.items() if key != "bf16"}
    return {**values, "model": model if plain else {**model, "compute": meant}, "training": training}


def with_teacher(values: dict[str, Any]) -> dict[str, Any]:
    """What follows from `model.teachers`: what the algorithm has its teacher asked."""
    model, algorithm = values.get("model"), values.get("algorithm")
    teachers = model.get("teachers") if isinstance(model, dict) else None
    if not isinstance(teachers, dict) or not isinstance(algorithm, dict) or (config := _config(algorithm)) is None:
        return values
    if "teacher_template" not in config.model_fields:
        return values
    given = [one.get("template") for one in teachers.values() if isinstance(one, dict)]
    templates = [template for template in given if template is not None]
    if len(templates) != 1:
        return values
    return {**values, "algorithm": {"teacher_template": templates[0], **algorithm}}


def with_rollout(values: dict[str, Any]) -> dict[str, Any]:
    """What follows from `rollout`: the algorithm's rollouts, pairs, max_tokens and updates, and the rows of a step; and from
    `rewards` their weights.
    """
    rollout, algorithm, training = (values.get(key) for key in ("rollout", "algorithm", "training"))
    if not isinstance(rollout, dict) or not isinstance(algorithm, dict) or not isinstance(training, dict):
        return values
    if (config := _config(algorithm)) is None:
        return values
    fields = config.model_fields
    asked = ("questions_per_step", "n", "max_tokens")
    given = {name: rollout.get(name, RolloutConfig.model_fields[name].default) for name in asked}
    pairs = rollout.get("pairs")
    samples = "rollouts" in fields and ("pairs" not in fields or pairs is not None)
    if not samples or not all(type(value) is int and value > 0 for value in given.values()):
        return values
    rows = given["questions_per_step"] * given["n"]
    updates = algorithm.get("updates")
    whole = type(updates) is int and updates > 0 and rows % updates == 0
    training = {"rows_per_step": rows // updates if whole else rows, **training}
    per_step = training["rows_per_step"]
    follows: dict[str, Any] = {"rollouts": given["n"], "max_tokens": given["max_tokens"], "pairs": pairs}
    if "reward_weights" in fields:
        follows["reward_weights"] = _reward_weights(values.get("rewards")) or None
    if type(per_step) is int and per_step > 0 and rows % per_step == 0:
        follows["updates"] = rows // per_step
    algorithm = {**{name: value for name, value in follows.items() if name in fields}, **algorithm}
    return {**values, "training": training, "algorithm": algorithm}


def with_values(values: dict[str, Any]) -> dict[str, Any]:
    """What follows from `rollout` for `data.collect.value`: how its answers are sampled, for what a question is worth is of
    the distribution that log-probs are of.

    Raises:
        ValueError: it says so itself, and otherwise.
    """
    rollout, data = values.get("rollout"), values.get("data")
    steps = collected_in(data)
    if not isinstance(rollout, dict) or not any(isinstance(step.get("value"), dict) for step in steps.values()):
        return values
    try:
        sampled = RolloutConfig.model_validate(rollout)
    except ValidationError:  # the checks will say so
        return values
    follows = {name: getattr(sampled, name) for name in Sampled.model_fields}
    for key, step in steps.items():
        given = step["value"] if isinstance(step.get("value"), dict) else {}
        for name, value in follows.items():
            if given.get(name, value) != value:
                raise ValueError(
                    f"{key}.value.{name}: questions are worth what the start model earns where it samples as rollouts are "
                    f"sampled, and this is {given[name]} where rollout.{name} is {value}: leave it out"
                )
    return with_steps(values, lambda step: _over_value(step, follows))


def _over_value(step: dict[str, Any], follows: dict[str, Any]) -> dict[str, Any]:
    given = step.get("value")
    return {**step, "value": {**follows, **given}} if isinstance(given, dict) else step


def _reward_weights(rewards: Any) -> dict[str, float] | None:
    """Of each reward by the name that it is logged under; None where they are not right, which the checks will say."""
    try:
        configs = TypeAdapter(list[AnyReward]).validate_python(rewards)
    except ValidationError:
        return None
    return {config.label: config.weight for config in configs}
