"""How new weights reach an engine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from posttrain.model.weights import Weights, write_shards

Rpc = Callable[[str, dict[str, Any]], None]


class WeightTransport(Protocol):
    """Brings weights to an engine."""

    def send(self, weights: Weights, version: int) -> None:
        """Returns when the engine holds them all."""
        ...

    def close(self) -> None:
        """Removes what it left."""
        ...


class TensorTransport:
    """Hands tensors to an engine in the same process."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc

    def send(self, weights: Weights, version: int) -> None:
        """See `WeightTransport`."""
        self._rpc("reload_weights", {"weights_iterator": weights})

    def close(self) -> None:
        """Nothing is left."""


def load_folder(rpc: Rpc, folder: Path) -> None:
    """Has the engine load a folder's weights."""
    rpc("reload_weights", {"weights_path": str(folder.resolve())})


class DiskTransport:
    """A safetensors folder that the engine loads: written under another name, renamed when it is whole.

    Args:
        rpc: calls a method of the engine.
        folder: that trainer and engine both see.
        config: a folder with the model's config.json, which is copied beside the weights.
    """

    def __init__(self, rpc: Rpc, folder: Path, config: Path) -> None:
        self._rpc, self._folder, self._config = rpc, folder, config
        self._last: Path | None = None
        self._written: list[Path] = []

    def write(self, weights: Weights, version: int) -> Path:
        """The folder of this version, whole; who loads it deletes it."""
        target = self._folder / f"weights-{version:06d}"
        unfinished = target.with_name(f"{target.name}.partial")
        for path in (unfinished, target):
            shutil.rmtree(path, ignore_errors=True)
        unfinished.mkdir(parents=True)
        shutil.copy(self._config / "config.json", unfinished)
        write_shards(weights, unfinished)
        os.replace(unfinished, target)
        self._written.append(target)
        return target

    def send(self, weights: Weights, version: int) -> None:
        """See `WeightTransport`."""
        target = self.write(weights, version)
        load_folder(self._rpc, target)
        if self._last is not None and self._last != target:
            shutil.rmtree(self._last, ignore_errors=True)
        self._last = target

    def close(self) -> None:
        """Removes the last weights, and those that nobody has loaded."""
        for folder in self._written:
            shutil.rmtree(folder, ignore_errors=True)
