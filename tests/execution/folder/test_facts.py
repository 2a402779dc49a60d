"""What a run that goes on must share with its checkpoint, and what is only told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import CheckpointError
from posttrain.execution.folder.run_folder import check_facts
from posttrain.train.checkpoint.folders import MANIFEST

NOW = {"processes": 1, "data": {"data.train": "a"}, "code": {"own.py:f": "1"}, "versions": {"torch": "2"}}


def told(tmp_path: Path, before: dict[str, Any]) -> list[str]:
    (tmp_path / MANIFEST).write_text(json.dumps(before))
    return check_facts(tmp_path, NOW)


def test_the_same_is_not_told(tmp_path: Path) -> None:
    assert told(tmp_path, NOW) == [] and told(tmp_path, {**NOW, "versions": {"torch": "1"}}) == []


def test_changed_code_is_told_and_other_data_or_processes_are_refused(tmp_path: Path) -> None:
    [sentence] = told(tmp_path, {**NOW, "code": {"own.py:f": "2"}})
    assert sentence.startswith("own.py:f changed since")
    for other in ({"data": {"data.train": "b"}}, {"data": {}}, {"processes": 2}):
        with pytest.raises(CheckpointError):
            told(tmp_path, {**NOW, **other})


def test_facts_that_a_checkpoint_lacks_are_told_and_not_refused(tmp_path: Path) -> None:
    assert len(told(tmp_path, {})) == 4
    [sentence] = told(tmp_path, {name: value for name, value in NOW.items() if name != "code"})
    assert "does not say with which code it was made" in sentence
