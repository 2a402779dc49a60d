"""One run at a time in a folder. No torch here: a second run is told before it loads anything."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from posttrain.errors import CheckpointError

LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While entered, the folder, made if need be, is this process's. The lock ends with the process, however it ends.

    Raises:
        CheckpointError: another run has it, or the folder cannot be made or written to.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with _opened(folder) as file:
        file.truncate(0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        file.write(json.dumps(holder))
        file.flush()
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # of a run that never began nothing is left
                for path in made:
                    path.rmdir()


def check_unlocked(folder: Path) -> None:
    """Refuses a folder that a run is in.

    Raises:
        CheckpointError: names its process and machine.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError), (folder / LOCK).open() as file:
        if not _take(file.fileno()):
            raise CheckpointError(_taken(folder))


def _opened(folder: Path) -> TextIO:
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+", encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be made: {error.strerror}. Choose another output_dir.") from None
        if not _take(file.fileno()):
            file.close()
            raise CheckpointError(_taken(folder))
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return file
        file.close()  # of a run that ended in between


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _taken(folder: Path) -> str:
    try:
        holder = json.loads((folder / LOCK).read_text())
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        who = "another process"
    return f"{folder} is in use: {who} runs in it. Wait for it, end it, or choose another output_dir."
