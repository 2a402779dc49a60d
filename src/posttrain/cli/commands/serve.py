"""`posttrain serve`: a model behind an OpenAI interface, by vLLM's server or transformers'."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from posttrain.cli.model_options import At, What, chosen_model
from posttrain.cli.screen import out, say


def serve(
    model: What,
    at: At = None,
    engine: Annotated[str | None, typer.Option(help="vllm or hf; vllm where it is installed, by default.")] = None,
    host: Annotated[str, typer.Option(help="Any other lets others in, without a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    option: Annotated[list[str], typer.Option(help="One more of the server's own, as --max-model-len=4096.")] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command only.")] = False,
) -> None:
    """Serve a run's model, or any, by an OpenAI interface."""
    chosen = chosen_model(model, at)
    from posttrain.execution.use.serving import command

    words = command(chosen, engine, host=host, port=port, options=option)
    if dry_run:
        out.print(shlex.join(words), markup=False, soft_wrap=True)  # whole, to be copied
    else:
        say(shlex.join(words))
        os.execv(words[0], words)  # signals are the server's own
