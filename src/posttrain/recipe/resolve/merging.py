"""Stages that merge models in place of training one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.model.merging.kinds import BY_NAME, OverBase
from posttrain.recipe.resolve.over import OF_THE_TASK

KEPT = [name for name in OF_THE_TASK if name not in ("adapter", "quantization", "reference")]
"""Of the top level's `model`: what is merged is whole, and nothing is trained."""
OF_TRAINING = ("collect", "replay", "earlier_rounds")
FOLLOWS = ("algorithm", "data", "rewards", "rollout", "training", "eval")
"""What a stage that merges has of the one before it, where the top level has none: for its evaluation alone."""
Values = dict[str, Any]


def with_merged(stage: Values, own: Values, base: Values, before: Sequence[Values], folders: Mapping[str, str]) -> Values:
    """A stage with the folders of the models that it merges, where it does; its model has the config of their first.

    Args:
        stage: with the top level's values.
        own: as it is written.
        base: the top level.
        before: the stages before it, each whole.
        folders: of these, by all their names.

    Raises:
        ValueError: a name is of no stage before it, or it says what it starts from.
    """
    merge = stage.get("merge")
    if not isinstance(merge, dict):
        return stage
    key = f"stages.{len(before)}"
    if "from" in own and "output_dir" not in own and "round" not in own:
        raise ValueError(f"{key}.from: a stage that merges starts from none: name models in merge.models")
    config = BY_NAME.get(str(merge.get("method")))
    over = config is not None and issubclass(config, OverBase)
    merge = {**({"base": "base"} if over else {}), **merge}

    def folder(name: Any, where: str) -> Any:
        return _folder(name, f"{key}.merge.{where}", base, before, folders)

    if isinstance(models := merge.get("models"), list):
        merge["models"] = [folder(name, f"models.{i}") for i, name in enumerate(models)]
    if "base" in merge:
        merge["base"] = folder(merge["base"], "base")
    first = next(iter(merge.get("models") or []), None) if not over else merge["base"]
    stage = {**{name: before[-1][name] for name in FOLLOWS if before and name in before[-1]}, **stage, "merge": merge}
    given = stage.get("model")
    model: Values = given if isinstance(given, dict) else {}
    if isinstance(data := stage.get("data"), dict):
        stage["data"] = {name: value for name, value in data.items() if name not in OF_TRAINING}
    kept = {name: value for name, value in model.items() if name in KEPT}
    return {**stage, "model": {**kept, **({"name": first} if isinstance(first, str) else {})}}


def _folder(name: Any, key: str, base: Values, before: Sequence[Values], folders: Mapping[str, str]) -> Any:
    if not isinstance(name, str):
        return name
    if name == "base":
        model = base.get("model")
        if isinstance(model, dict) and isinstance(model.get("name"), str):
            return model["name"]
        raise ValueError(f"{key}: base is made from scratch here and lies in no folder: name a stage, or a folder")
    if name == "previous" and before:
        return f"{before[-1]['output_dir']}/final"
    if name in folders:
        return f"{folders[name]}/final"
    if "/" in name or Path(name).is_dir():
        return name
    known = ", ".join(folders) or "none"
    raise ValueError(
        f"{key}: {name} is neither base, previous, a stage before ({known}), a folder, nor OWNER/NAME of the hub"
    )
