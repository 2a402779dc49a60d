"""What the rows of a source depend on: its keys, and the state of its files, so that others are told from the same."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from posttrain.data.sources.files import files_of, loaded_by_datasets
from posttrain.settings.data import GymSource, HubSource, PathSource, Source


def state_of(source: Source) -> dict[str, Any]:
    """As JSON has it; how much of it is read in a mixture is no part of it.

    Raises:
        DataError: it cannot be found.
    """
    keys = source.model_dump(mode="json", exclude={"weight", "stream", "shuffle_buffer"})
    if isinstance(source, PathSource):
        return {**keys, "files": _files(files_of(source.path))}
    if isinstance(source, HubSource):
        rows = loaded_by_datasets(source.hub, source.hub, **source.loaded)
        return {**keys, "files": _files(Path(one["filename"]) for one in rows.cache_files), "rows": len(rows)}
    return {**keys, "reasoning-gym": version("reasoning-gym")} if isinstance(source, GymSource) else keys


def _files(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, bytes, and when it was written last, in nanoseconds."""
    return [(str(path.absolute()), found.st_size, found.st_mtime_ns) for path in paths for found in [path.stat()]]
