"""Stages that replay earlier ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.recipe.resolve.named import config_of
from posttrain.recipe.resolve.rounds import plain_name


def with_replayed(before: Sequence[dict[str, Any]], stage: dict[str, Any]) -> dict[str, Any]:
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
        if not any(name in _names(folder, one) for folder, one in folders.items()):
            raise ValueError(f"{key}: {name} is no earlier stage ({', '.join(folders)})")
    chosen = {
        folder: one
        for folder, one in folders.items()
        if not isinstance(asked, list) or any(name in asked for name in _names(folder, one))
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


def _names(folder: str, stage: dict[str, Any]) -> tuple[str, ...]:
    """What a stage is called: by its folder, by its name, and in every round."""
    return folder, stage["name"], plain_name(stage)


def _read_as(stage: dict[str, Any]) -> str | None:
    """What kind of rows a stage reads, as far as it can be told."""
    config, rollout = config_of(stage.get("algorithm")), stage.get("rollout")
    if config is None:
        return None
    sampled = config.trains_on == "rollouts" or (isinstance(rollout, dict) and rollout.get("pairs") is not None)
    return "questions" if sampled else config.trains_on
