"""Checkpoints as folders, whole or not at all: written under another name, proved by a manifest, found again.

A checkpoint has `manifest.json`, written last: the size and the SHA-256 of each of its files, the facts that a run which
goes on from it must share, and its own sum. In `.partial/` lies what was being written, or deleted, when its process ended.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from posttrain.distributed import ranks
from posttrain.errors import CheckpointError
from posttrain.model.proofs import disk

MANIFEST, PARTIAL, FORMAT = "manifest.json", ".partial", 1


def staging_of(folder: Path) -> Path:
    """Where the checkpoints of a run's folder are written before they are whole."""
    return folder / PARTIAL


def write(
    folder: Path, step: int, fill: Callable[[Path], None], facts: Mapping[str, Any], *, keep: int | None = None
) -> Path:
    """`folder/checkpoint-<step>`, of what `fill` writes into the folder that it is given. All ranks call it.

    Args:
        folder: the run's.
        step: optimizer steps done.
        fill: writes this rank's files, into `staging_of(folder)/checkpoint-<step>`.
        facts: of the run, for the manifest.
        keep: so many checkpoints stay; older ones go when the new one is whole.

    Raises:
        CheckpointError: it cannot be written; those before it are as they were.
    """
    target = folder / f"checkpoint-{step}"
    staging = staging_of(folder) / target.name
    try:
        if ranks.is_main():
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        ranks.barrier(f"the start of {target.name}")
        fill(staging)
        if ranks.is_main():
            disk.open_to_others(staging)
        ranks.barrier(f"the files of {target.name}")
        files = [path for path in disk.files(staging) if path.name != MANIFEST]
        share = {str(path.relative_to(staging)): _written_through(path) for path in ranks.my_share(files)}
        proofs = {name: proof for one in ranks.all_gather(share, f"the sums of {target.name}") for name, proof in one.items()}
        if ranks.is_main():
            manifest = staging / MANIFEST
            described = {"format": FORMAT, "step": step, **facts, "files": proofs}
            manifest.write_text(json.dumps({**described, "sha256": _seal(described)}, indent=1))
            _written_through(manifest)
            _publish(staging, target)
            for path in _superseded(folder, step, keep):
                _remove(path)
            shutil.rmtree(staging_of(folder))
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(staging_of(folder), ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{target} cannot be written: {reason}. The checkpoints before it are whole; make room, and the same command "
            "resumes from the newest."
        ) from error
    ranks.barrier(f"{target.name}")
    return target


def newest(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as it was written, or None where there is none at all.

    Args:
        folder: the run's.
        warn: is told of every newer one that is passed over, and why.

    Raises:
        CheckpointError: there are some, and none is as it was written.
    """
    for path in sorted(staging_of(folder).glob("checkpoint-*")):
        warn(f"{path} was being written when the run ended, and is not used.")
    numbered = _numbered(folder)
    for path in reversed(numbered):
        fault = damage(path)
        if fault is None:
            return path
        warn(f"{path} is damaged ({fault}), and is not used.")
    if numbered:
        raise CheckpointError(
            f"{folder}: no checkpoint is as it was written ({numbered[-1].name}: {damage(numbered[-1])}). Bring one back, or "
            "delete them all to begin again."
        )
    return None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with its files, or None."""
    try:
        described = json.loads((checkpoint / MANIFEST).read_text())
        if described.pop("sha256") != _seal(described):
            return f"{MANIFEST} is not what was written"
        if described["format"] != FORMAT:
            return f"its format is {described['format']}, and this version reads {FORMAT}"
        for name, proof in described["files"].items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != proof["bytes"]:
                return f"{name} has {path.stat().st_size} bytes in place of {proof['bytes']}"
            if _digest(path) != proof["sha256"]:
                return f"{name} is not what was written"
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    return None


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """What its manifest says of the run."""
    return json.loads((checkpoint / MANIFEST).read_text())


def _numbered(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("checkpoint-*") if path.name.partition("-")[2].isdigit()), key=_step)


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def _superseded(folder: Path, step: int, keep: int | None) -> list[Path]:
    """By the checkpoint of this step: older ones beyond those to keep, and newer ones, which were damaged and passed over."""
    older = [path for path in _numbered(folder) if _step(path) < step]
    newer = [path for path in _numbered(folder) if _step(path) > step]
    return [*newer, *(older[: max(len(older) + 1 - keep, 0)] if keep else [])]


def _publish(staging: Path, target: Path) -> None:
    disk.sync_folders(staging)
    if target.exists():  # damaged: a whole one would have been resumed from
        _remove(target)
    os.replace(staging, target)
    disk.sync(target.parent)


def _remove(checkpoint: Path) -> None:
    partial = staging_of(checkpoint.parent) / f"{checkpoint.name}-old"
    os.replace(checkpoint, partial)
    shutil.rmtree(partial)


def _written_through(path: Path) -> dict[str, Any]:
    """The size and sum of a file that is on the disk, whatever becomes of the machine."""
    disk.sync(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _seal(described: Mapping[str, Any]) -> str:
    """The sum of a manifest's content, however it is laid out."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
