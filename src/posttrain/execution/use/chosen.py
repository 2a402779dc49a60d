"""Which model is meant: of a run its final one, its best, a checkpoint, the adapter beside one; or any other model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from posttrain.errors import CheckpointError, RecipeError
from posttrain.execution.folder.recipe_file import kept_values
from posttrain.execution.study.outcome import stages
from posttrain.settings.data import Encoding
from posttrain.settings.faults import faults
from posttrain.telling import tell

AT = "final, best, adapter, checkpoint-N"


@dataclass(frozen=True)
class Chosen:
    """A model to be used.

    place: its folder, or a name of the hub. name: for people. run: the folder that it is of, where it is one of a run.
    encoding: how the run makes tokens of a prompt; as a model's own template does, where there is no run. note: what a person
    may not expect of the choice.
    """

    place: str
    name: str
    run: Path | None
    encoding: Encoding
    note: str = ""

    @property
    def is_adapter(self) -> bool:
        """Whether only an adapter lies there, and its base elsewhere."""
        folder = Path(self.place)
        return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def choose(what: str, at: str | None = None) -> Chosen:
    """The model of a run, or one by its folder or name.

    Args:
        what: the folder of a run, of a model or of an adapter; or a name of the hub.
        at: of a run: final, best, adapter, or checkpoint-N. Without one the final model, or of a run that is not finished
            the newest checkpoint.

    Raises:
        RecipeError: `at` goes with runs only, or is none of these.
        CheckpointError: the run has no such model.
    """
    folder = Path(what).expanduser()
    if not (folder / "recipe.yaml").is_file():
        if at is not None:
            raise RecipeError(f"--at {at}: {what} is not the folder of a run, which alone has several models.")
        return Chosen(str(folder) if folder.is_dir() else what, folder.name or what, None, Encoding())
    place, note = _of_run(folder, at)
    return Chosen(str(place), f"{folder.resolve().name}, {place.relative_to(folder)}", folder, _encoding(folder), note)


def _of_run(folder: Path, at: str | None) -> tuple[Path, str]:
    if at is None:
        if (folder / "final").is_dir():
            return folder / "final", ""
        newest = _checkpoints(folder)
        if not newest:
            raise CheckpointError(f"{folder} has no model yet: neither final/ nor a checkpoint. Go on with the run first.")
        return newest[-1], f"The run is not finished: this is {newest[-1].relative_to(folder)}."
    names = {"final": Path("final"), "best": Path("best"), "adapter": Path("final", "adapter")}
    wanted = names.get(at)
    if wanted is None:
        found = [path for path in _checkpoints(folder) if path.name == at or path.name == f"checkpoint-{at}"]
        if not found and not at.removeprefix("checkpoint-").isdigit():
            raise RecipeError(f"--at {at}: one of {AT} is expected.")
        if not found:
            there = ", ".join(str(path.relative_to(folder)) for path in _checkpoints(folder)) or "none"
            raise CheckpointError(f"{folder} has no {at}. Its checkpoints: {there}.")
        return found[-1], ""
    for part in (folder, *reversed(stages(folder))):
        if (part / wanted).is_dir():
            return part / wanted, ""
    reasons = {
        "final": "The run is not finished; go on with it.",
        "best": "It is kept where eval.metric is set.",
        "adapter": "It is there where model.adapter is set.",
    }
    raise CheckpointError(f"{folder} has no {wanted}. {reasons[at]}")


def _checkpoints(folder: Path) -> list[Path]:
    """Of the last stage that has any, the newest one last."""
    for part in reversed(stages(folder)):
        found = [path for path in part.glob("checkpoint-*") if path.name.partition("-")[2].isdigit() and path.is_dir()]
        if found:
            return sorted(found, key=lambda path: int(path.name.partition("-")[2]))
    return []


def _encoding(folder: Path) -> Encoding:
    try:
        recipe: Any = kept_values(folder)
        data = ((recipe.get("stages") or [recipe])[-1].get("data")) or {}
        if any("eval" in one.get("sets", ()) for one in data.get("transforms", ())):
            tell(
                "asked-as-it-is",
                f"{folder}: its evaluation sets were asked by data.transforms, and here prompts are not.",
            )
        return Encoding.model_validate({name: value for name, value in data.items() if name in Encoding.model_fields})
    except ValidationError as error:
        raise CheckpointError(f"{folder}/recipe.yaml: data: {faults(error)[0]}") from None
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{folder}/recipe.yaml cannot be read: {error}") from None
