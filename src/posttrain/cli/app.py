"""The command line. Exit codes: 0 done, 1 unforeseen, 2 recipe or usage, 3 data, 4 environment, 5 non-finite, 6 engine,
7 rewards, 8 checkpoint, 75 interrupted.

torch and transformers are imported by the commands that need them, after the recipe has been checked. Of several
processes the first one prints; an error of another is told where the first has none.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
import time
from inspect import signature
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.assignments import TakesOverrides
from posttrain.cli.commands import COMMANDS
from posttrain.cli.screen import err, out, say, take_any_text, warnings_on_screen
from posttrain.cli.unforeseen import Unforeseen, tracebacks_kept_in
from posttrain.distributed.signals import Interruption
from posttrain.errors import Interrupted, PosttrainError
from posttrain.train.watch.redaction import shareable

PATIENCE = 3.0  # seconds in which a process that has failed ends, and the launcher ends the others
SPINS = "20000"  # looks that an OpenMP thread takes while it waits for another one, before it gives its processor away
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
for name, command in COMMANDS:
    app.command(name, cls=TakesOverrides if "overrides" in signature(command).parameters else None)(command)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"posttrain {importlib.metadata.version('posttrain')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print it.")] = False,
) -> None:
    """Post-training algorithms for language models, as variants of one policy-gradient estimator."""


def main() -> None:
    """Runs the command; an error, or a signal, is one message on stderr and its exit code: 1 for an error that nobody
    foresaw, whose traceback is kept in a file.

    Where one of several processes fails, others fail as well, in the same way or for lack of the one, until the launcher
    ends them. So that the cause is told, and once, rank 0 comes before others, and a known error before an unforeseen one;
    and a signal by rank 0 alone, where it is not the launcher's for such an error.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # is read when torch is imported
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    rank = int(os.environ.get("RANK", "0")) if several else 0
    out.quiet = rank > 0
    take_any_text()
    try:
        with Interruption(), warnings_on_screen(quiet=rank > 0), tracebacks_kept_in(Path(tempfile.gettempdir())):
            app(prog_name="posttrain")
    except (PosttrainError, Interrupted) as error:
        if several and _is_no_news(error, rank):
            if isinstance(error, Interrupted) and error.together:
                time.sleep(PATIENCE * (rank > 0))
            sys.exit(error.exit_code)
        first = PATIENCE if several and isinstance(error, Unforeseen) else 0
        time.sleep(first + (PATIENCE if rank else 0))
        err.print(f"{error.label} (rank {rank}):" if rank else f"{error.label}:", style="bold red", end=" ")
        err.print(shareable(str(error)), markup=False)
        sys.exit(error.exit_code)


def _is_no_news(error: PosttrainError | Interrupted, rank: int) -> bool:
    """Of one of several processes: whether another one tells why it ends. Word is left of an error of its own."""
    if "torch" not in sys.modules:
        return isinstance(error, Interrupted) and rank > 0
    from posttrain.distributed.waiting import one_failed, tell_failed

    if isinstance(error, Interrupted):
        return rank > 0 or one_failed()
    if not isinstance(error, Unforeseen):  # which may follow from another rank's end
        tell_failed()
    return False
