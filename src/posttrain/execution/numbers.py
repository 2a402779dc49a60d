"""In what numbers a run multiplies, trains and saves: by its recipe and its device, and the same from start to end."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
import yaml

from posttrain.distributed import ranks
from posttrain.execution.folder.recipe_file import kept_values
from posttrain.execution.folder.same_recipe import computing_as
from posttrain.recipe.recipe import Recipe

R = TypeVar("R", bound=Recipe)


def on_gpu(recipe: Recipe) -> bool:
    """Whether it trains on a GPU."""
    return torch.cuda.is_available() and not recipe.training.extra.get("use_cpu", False)


def computed_in(recipe: Recipe) -> str:
    """The dtype of its products."""
    if recipe.model.dtype == "float64":
        return "float64"
    plain = "bfloat16" if on_gpu(recipe) and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return recipe.model.compute or plain


def has_own_masters(recipe: Recipe) -> bool:
    """Whether DeepSpeed trains a float32 copy of its own beside a bfloat16 model."""
    processes = max(recipe.distributed.processes, ranks.world())
    return recipe.distributed.by_deepspeed and processes > 1 and computed_in(recipe) == "bfloat16"


def settled(recipe: R) -> R:
    """The recipe with its `model.compute`: as it says, else that of the run in its folder, else by the device. All ranks call
    it. Where there are stages, each has its own when it runs.
    """
    if recipe.stages or recipe.model.dtype == "float64":
        return recipe
    compute = ranks.broadcast(computed_in(_as_begun(recipe)), "model.compute")
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"compute": compute})})


def _as_begun(recipe: R) -> R:
    try:
        values = kept_values(Path(recipe.output_dir))
        return computing_as(recipe, type(recipe).model_validate(values))
    except (OSError, ValueError, yaml.YAMLError):  # whether it can be read is checked elsewhere
        return recipe


def described(recipe: Recipe) -> dict[str, str]:
    """For a reader."""
    computed, saved = computed_in(recipe), recipe.model.dtype
    trained = "float64" if saved == "float64" else "float32"
    if has_own_masters(recipe):
        trained = "float32, in a copy that DeepSpeed keeps beside the bfloat16 weights"
    elif recipe.model.quantization is not None:
        trained += f", over a frozen base in {recipe.model.quantization.label}"
    elif recipe.model.adapter is not None:
        trained += f", over a frozen base in {saved}"
    return {"computed in": computed, "trained in": trained, "saved as": saved}
