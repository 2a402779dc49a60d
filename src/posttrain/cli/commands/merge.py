"""`posttrain merge`: an adapter folded into its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.model_options import At, What, check_dtype, chosen_model
from posttrain.cli.options import begun
from posttrain.cli.screen import say


def merge(
    model: What,
    output: Annotated[Path, typer.Option(help="The folder of the whole model; it must not be there yet.")],
    at: At = None,
    dtype: Annotated[str, typer.Option(help="Of what is written: float32 or bfloat16.")] = "float32",
) -> None:
    """Fold an adapter into its base, and prove that what is written is the same model."""
    check_dtype(dtype)
    chosen = chosen_model(model, at if at is not None else _adapter_of(model))
    say(f"{begun()}: {chosen.name}: loading torch and transformers, which takes a while at first …")
    from posttrain.execution.use.merging import merge as merged

    merged(chosen, output, dtype)
    say(f"Model: {output.resolve()}, with the log-probs of adapter and base")


def _adapter_of(model: str) -> str | None:
    """Of a finished run the adapter is meant, if nothing else is said; of another one its newest checkpoint."""
    return "adapter" if (Path(model).expanduser() / "final").is_dir() else None
