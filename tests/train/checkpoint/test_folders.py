"""Checkpoints as folders: whole or not at all, whatever happens while one is written, and whatever happens to it later."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import CheckpointError
from posttrain.train.checkpoint import folders as checkpoints
from posttrain.train.checkpoint.folders import MANIFEST, PARTIAL, damage, newest, write

CALLS = ((os, "fsync"), (os, "replace"), (shutil, "rmtree"), (Path, "mkdir"), (Path, "write_bytes"), (Path, "write_text"))


def save(folder: Path, step: int, keep: int | None = 2) -> Path:
    def fill(staging: Path) -> None:
        (staging / "states").mkdir()
        (staging / "model.bin").write_bytes(b"model of %d" % step)
        (staging / "states" / "rank_0.bin").write_bytes(b"state of %d" % step)

    return write(folder, step, fill, {"processes": 1}, keep=keep)


def whole(folder: Path, step: int) -> bool:
    return (folder / f"checkpoint-{step}" / "model.bin").read_bytes() == b"model of %d" % step


def test_one_is_written_found_and_older_ones_go(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert newest(tmp_path, warnings.append) is None
    for step in (2, 9, 10):
        save(tmp_path, step)
        assert (
            damage(tmp_path / f"checkpoint-{step}") is None
            and checkpoints.facts_of(tmp_path / f"checkpoint-{step}")["step"] == step
        )
    assert newest(tmp_path, warnings.append) == tmp_path / "checkpoint-10"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"] and not warnings


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink])
@pytest.mark.parametrize("name", ["model.bin", "states/rank_0.bin", MANIFEST])
def test_a_damaged_one_is_passed_over_and_named(name: str, harm: Callable[[Path], Any], tmp_path: Path) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)
    harm(tmp_path / "checkpoint-2" / name)
    warnings: list[str] = []
    found = newest(tmp_path, warnings.append)
    assert found == tmp_path / "checkpoint-1" and "checkpoint-2 is damaged" in warnings[0]
    harm(tmp_path / "checkpoint-1" / "model.bin")
    with pytest.raises(CheckpointError, match="no checkpoint is as it was written"):
        newest(tmp_path, warnings.append)


def test_one_that_is_written_after_damaged_ones_is_not_taken_for_old(tmp_path: Path) -> None:
    for step in (2, 4, 6):
        save(tmp_path, step, keep=None)
    for step in (4, 6):
        flip(tmp_path / f"checkpoint-{step}" / "model.bin")
    assert newest(tmp_path, lambda _: None) == tmp_path / "checkpoint-2"
    save(tmp_path, 3, keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-3"]
    save(tmp_path, 4, keep=None)
    assert newest(tmp_path, pytest.fail) == tmp_path / "checkpoint-4" and whole(tmp_path, 3)


def calls_of(folder: Path, monkeypatch: pytest.MonkeyPatch, do: Callable[[int, str], None]) -> int:
    """Calls `do` before every call that changes the disk while checkpoint 3 is written beside two others; their number."""
    seen = 0

    def before(owner: Any, name: str) -> None:
        honest = getattr(owner, name)

        def called(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            do(seen, name)
            return honest(*arguments, **options)

        monkeypatch.setattr(owner, name, called)

    for owner, name in CALLS:
        before(owner, name)
    try:
        save(folder, 3)
    finally:
        monkeypatch.undo()
    return seen


def test_a_kill_at_any_call_leaves_one_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def folder_of(number: int) -> Path:
        folder = tmp_path / str(number)
        save(folder, 1)
        save(folder, 2)
        return folder

    count = calls_of(folder_of(0), monkeypatch, lambda *_: None)
    assert count > 15
    left = set[str]()
    for number in range(1, count + 1):
        folder = folder_of(number)
        if (child := os.fork()) == 0:
            calls_of(folder, monkeypatch, lambda seen, _, number=number: os._exit(9) if seen == number else None)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        found = newest(folder, lambda _: None)
        assert found is not None and found.name in ("checkpoint-2", "checkpoint-3") and whole(folder, int(found.name[-1]))
        left.add(found.name)
        save(folder, 4)
        assert newest(folder, pytest.fail) == folder / "checkpoint-4" and not (folder / PARTIAL).exists()
    assert left == {"checkpoint-2", "checkpoint-3"}


def test_all_of_one_is_on_the_disk_before_it_has_its_name_and_its_name_before_older_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a machine that stops loses is what was not synced: files, the names in their folders, and its own name."""
    save(tmp_path, 1)
    events: list[tuple[str, int]] = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        events.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        events.append((f"{source.name} becomes {target.name}", 0))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    made = save(tmp_path, 2, keep=1)
    named = events.index(("checkpoint-2 becomes checkpoint-2", 0))
    gone = events.index(("checkpoint-1 becomes checkpoint-1-old", 0))
    inodes = {path.stat().st_ino for path in (made, *made.rglob("*"))}
    assert inodes <= {inode for _, inode in events[:named]}
    assert ("sync", tmp_path.stat().st_ino) in events[named:gone]


@pytest.mark.parametrize("name", ["fsync", "replace", "write_bytes", "write_text", "mkdir"])
def test_a_full_disk_is_an_error_and_leaves_the_older_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    save(tmp_path, 2)

    def full(_: int, called: str) -> None:
        if called == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match="checkpoint-3 cannot be written: No space left on device"):
        calls_of(tmp_path, monkeypatch, full)
    assert newest(tmp_path, pytest.fail) == tmp_path / "checkpoint-2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-2"]
