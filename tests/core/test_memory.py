"""The memory of a process by the formula, against sums made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.distributed.config import DistributedConfig
from posttrain.distributed.memory import Held, held


def of(mode: str, processes: int, **options: Any) -> Held:
    defaults = {"parameters": 1000, "trainable": 1000, "number": 2, "reference": False}
    return held(DistributedConfig.model_validate({"mode": mode}), processes, **{**defaults, **options})


@pytest.mark.parametrize(
    ("mode", "processes", "options", "expected"),
    [
        ("ddp", 1, {"number": 4}, Held(4000, 4000, 8000, 0)),
        ("ddp", 8, {"number": 4}, Held(4000, 4000, 8000, 0)),
        ("zero1", 4, {}, Held(2000, 2000, 3000, 0)),
        ("zero2", 4, {}, Held(2000, 500, 3000, 0)),
        ("zero3", 4, {"reference": True}, Held(500, 500, 3000, 500)),
        ("zero2", 4, {"reference": True}, Held(2000, 500, 3000, 2000)),
        ("fsdp2", 4, {"number": 4}, Held(1000, 1000, 2000, 0)),
        ("zero3", 1, {}, Held(2000, 2000, 4000, 0)),  # one process shares nothing, and DeepSpeed has no part
        ("zero3", 4, {"trainable": 100}, Held(500, 50, 300, 0)),
    ],
)
def test_what_a_process_holds(mode: str, processes: int, options: dict[str, Any], expected: Held) -> None:
    assert of(mode, processes, **options) == expected


def test_it_is_told_in_gigabytes_without_what_is_not_there() -> None:
    told = str(of("zero3", 64, parameters=70_000_000_000, trainable=70_000_000_000))
    assert told == "weights 2.19 GB, gradients 2.19 GB, optimizer 13.1 GB"


def test_no_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="processes is 0, expected at least 1"):
        of("ddp", 0)
