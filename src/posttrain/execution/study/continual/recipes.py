"""The stages of a run over a sequence of tasks, and those of its line of models."""

from __future__ import annotations

from typing import Any

from posttrain.execution.study.continual.config import START, AnchorConfig, ContinualConfig
from posttrain.recipe.resolve.over import over

ANCHOR = "anchor"
"""The folder of the line in that of a run; it is a run itself, whose stages merge."""
ON_THE_LINE = "alpha-"
"""What the name of a stage of it begins with, before α."""
WHAT_MOVES = ("update", "trainable", "parameters")
"""Of `training`, what is of a model's parts, which whole models that are merged need not have."""
Values = dict[str, Any]


def task_stages(continual: ContinualConfig, values: Values) -> tuple[Values, list[Values]]:
    """A run's values without what its stages have of their own, and a stage for each task, with its share and rate.

    `data.replay` is of all stages but the first, which has nothing to replay.
    """
    data = values.get("data", {})
    shared = {**values, "data": {key: value for key, value in data.items() if key not in ("train", "replay")}}
    stages: list[Values] = []
    for task, share in zip(continual.tasks, continual.shares, strict=True):
        own = {**task.changes.get("data", {}), "train": task.train}
        if stages and "replay" in data:
            own["replay"] = data["replay"]
        stages.append({**task.changes, "data": own, "name": task.name, "share": share, "rate": task.rate})
    return shared, stages


def anchored(anchor: AnchorConfig, values: Values, folder: str) -> Values:
    """The values of a run that merges models of another and evaluates each as the other's last stage is evaluated.

    Args:
        anchor: where on the line.
        values: of the other, with its stages and the model that it begins from.
        folder: the other's.
    """
    *_, last = values["stages"]
    names = [stage["name"] for stage in values["stages"]]
    start = values["model"]["name"]
    base = start if anchor.origin == START else f"{folder}/{names.index(anchor.origin) + 1}-{anchor.origin}/final"
    own = {key: value for key, value in last.items() if key != "name"}
    own["data"] = {key: value for key, value in own["data"].items() if key != "replay"}
    whole = {**values, **{key: over(key, values.get(key), value) for key, value in own.items()}}
    whole["training"] = {key: value for key, value in whole["training"].items() if key not in WHAT_MOVES}
    merges = [
        {
            "name": f"{ON_THE_LINE}{alpha:g}",
            "merge": {"method": "wise_ft", "base": base, "models": [f"{folder}/final"], "alpha": alpha},
        }
        for alpha in anchor.alphas
    ]
    return {**whole, "stages": merges, "output_dir": f"{folder}/{ANCHOR}"}


def alpha_of(stage: str) -> str:
    """α of the name of a stage of the line."""
    return stage.removeprefix(ON_THE_LINE)
