"""What follows from `rollout`, `rewards` and `model.teachers`, and one key by two names."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.recipe.resolve.named import config_of
from posttrain.rewards.kinds import AnyReward
from posttrain.settings.data.writers import collected_in, with_steps
from posttrain.settings.rollout import RolloutConfig, Sampled


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
    if not isinstance(teachers, dict) or not isinstance(algorithm, dict) or (config := config_of(algorithm)) is None:
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
    if (config := config_of(algorithm)) is None:
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
    if training.get("tokens_per_step") is None:  # the checks will say so
        training = {"rows_per_step": rows // updates if whole else rows, **training}
    per_step = training.get("rows_per_step")
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
