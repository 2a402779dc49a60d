"""Folders that are on the disk, whole, whatever becomes of the machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def files(folder: Path) -> Iterator[Path]:
    """Every file in a folder and in those below it, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def sync(path: Path) -> None:
    """Brings a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(folder: Path) -> None:
    """The names in a folder and in those below it that hold files."""
    for path in {parent for file in files(folder) for parent in file.parents if parent.is_relative_to(folder)}:
        sync(path)


def publish(fresh: Path, folder: Path) -> None:
    """Puts a folder in place of what was there, when all of it is on the disk."""
    former = folder.with_name(f"{folder.name}.former")
    for path in files(fresh):
        sync(path)
    sync_folders(fresh)
    if folder.exists():
        os.replace(folder, former)
    os.replace(fresh, folder)
    sync(folder.parent)
    shutil.rmtree(former, ignore_errors=True)


def open_to_others(folder: Path) -> None:
    """Gives every file the mode that the process gives to new ones; safetensors makes its own private."""
    mask = os.umask(0)
    os.umask(mask)
    for path in files(folder):
        path.chmod(0o666 & ~mask)
