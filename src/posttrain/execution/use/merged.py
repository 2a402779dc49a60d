"""Several models made into one by a formula."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from posttrain.errors import RecipeError, SetupError
from posttrain.execution.use.chosen import Chosen
from posttrain.model.merging.kinds import AnyMerge, MergeConfig
from posttrain.settings.faults import faults


def asked_for(given: Mapping[str, Any], output: Path) -> list[tuple[MergeConfig, Path]]:
    """What is asked for on the command line, each with its folder: of several `alpha` one below the output for each.

    Raises:
        RecipeError: an option is wrong, or something lies in a folder.
    """
    alphas = given.get("alpha") or [None]
    found: list[tuple[MergeConfig, Path]] = []
    for alpha in alphas:
        own = {name: value for name, value in given.items() if name != "alpha"}
        folder = output / f"alpha-{alpha:g}" if len(alphas) > 1 else output
        found.append((_checked(own if alpha is None else {**own, "alpha": alpha}), folder))
    for _, folder in found:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RecipeError(f"merge: {folder} is there already. Choose another --output.")
    return found


def _checked(given: Mapping[str, Any]) -> MergeConfig:
    try:
        return TypeAdapter[MergeConfig](AnyMerge).validate_python(given)
    except ValidationError as error:
        found = faults(error)[0]
        key = found.where[-1] if found.where and found.where[-1] != given["method"] else ""
        option = {"models": "", "": ""}.get(key, f" --{key}")
        raise RecipeError(f"merge{option}: {found.message}{'' if found.message.endswith('?') else '.'}") from None


def check_places(places: Sequence[str], *, made: Sequence[str]) -> None:
    """Whether models that are to be merged are there, but for those that earlier stages will have made.

    Raises:
        SetupError: one is not, or two of them do not fit together.
    """
    from posttrain.model.merging.folder import check_models

    there = [place for place in places if place not in {f"{folder}/final" for folder in made}]
    if there:
        check_models([local(place) for place in dict.fromkeys(there)])


def merge_chosen(config: MergeConfig, chosen: Mapping[str, Chosen], output: Path) -> list[str]:
    """Writes the merged model, and says what is to be known of it.

    Args:
        config: how.
        chosen: what is meant by each of its places.
        output: the folder.

    Raises:
        SetupError: a model is not there, or they do not fit together.
        CheckpointError: as `merge_models`.
    """
    import transformers

    from posttrain.model.merging.folder import merge_models

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return merge_models(config, [local(chosen[place].place) for place in config.places], output)


def local(place: str) -> Path:
    """The folder of a model; of one of the hub that of its files here, which are fetched if they are not.

    Raises:
        SetupError: there is none.
    """
    if Path(place).is_dir():
        return Path(place)
    from posttrain.model.pretrained.model import HUB_NAME, first_line

    if not re.fullmatch(HUB_NAME, place) or (Path(place).parent.is_dir() and Path(place).parent != Path()):
        raise SetupError(f"merge: there is no such folder: {Path(place).absolute()}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(place, ignore_patterns=["*.bin", "*.pt", "*.pth", "*.gguf", "original/*"]))
    except Exception as error:  # the hub's, the network's, the disk's
        raise SetupError(f"merge: {place} is no folder here, and cannot be had from the hub: {first_line(error)}") from error
