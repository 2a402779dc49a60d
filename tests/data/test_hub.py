"""A data set as `datasets` loads it: streamed it has the same rows, and it is known by the files that are kept of it."""

from __future__ import annotations

from pathlib import Path

from posttrain.data.sources import read
from posttrain.data.sources.state import state_of
from posttrain.settings.data import HubSource, PathSource
from recipes import write


def test_it_streams_and_another_state_of_it_is_told_from_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "owner"
    folder.mkdir()
    path = write(folder / "train.jsonl", *({"prompt": f"{i}+1=", "completion": f"{i + 1}"} for i in range(5)))
    source, streaming = (HubSource(hub=str(folder), stream=stream) for stream in (False, True))
    assert [one.columns for one in read(streaming)] == [one.columns for one in read(source)]
    assert [one.where for one in read(streaming)] == [one.where for one in read(source)]
    before = state_of(source)
    assert before == state_of(source) and before["rows"] == 5
    write(Path(path), {"prompt": "1+1=", "completion": "2"})
    assert state_of(source) != before
    files = state_of(PathSource(path=path))
    assert files == state_of(PathSource(path=path, stream=True)) != state_of(PathSource(path=path, limit=3))
