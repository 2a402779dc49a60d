"""An adapter folded into its base, and proved to be the same model."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from posttrain.errors import RecipeError, SetupError
from posttrain.execution.use.chosen import Chosen
from posttrain.model.load import load
from posttrain.model.saving import save_model
from posttrain.settings.model import ModelConfig

PROBES = ("The answer is", "1 + 2 = 3. What comes next, and why?", "Once there was a model that was asked to be another one.")
"""Texts on which what is written must give the log-probs of what is in memory."""


def merge(chosen: Chosen, output: Path, dtype: str) -> None:
    """Writes the whole model, in `dtype`, with the adapter beside it.

    Raises:
        RecipeError: there is no adapter, or something lies in the folder.
        SetupError: the model cannot be loaded.
        CheckpointError: it cannot be written, or is not what was loaded.
    """
    if not Path(chosen.place).is_dir():
        raise RecipeError(f"merge: {chosen.place} is no folder here; that of a run or of an adapter is expected.")
    if not chosen.is_adapter:
        raise RecipeError(
            f"merge: {chosen.place} is a whole model: there is nothing to fold in. final/ of a run is merged already; a "
            "run's adapter is meant by --at adapter."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RecipeError(f"merge: {output} is there already. Choose another --output.")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    model, tokenizer = load(ModelConfig(name=chosen.place, dtype="float32"), seed=0)
    rows = [ids for ids in (tokenizer.encode(text) for text in PROBES) if len(ids) > 1]
    if not rows:
        raise SetupError(f"{chosen.place}: its tokenizer reads nothing in plain English: what is merged cannot be proved.")
    save_model(model, tokenizer, output, rows=rows, dtype=getattr(torch, dtype))
