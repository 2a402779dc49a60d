"""A case, run: the metrics of its steps, and what its folder holds."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import safe_open

from gpu.cases import Case
from posttrain import load_recipe, run
from posttrain.telling import hearing

COMPARED = ("loss", "grad_norm")
TRIED = ("attention", "head", "layout", "compile")
"""Rules under which a way that was tried at the start, and not taken, is told."""


@dataclass(frozen=True)
class Trained:
    """The metrics of each step, but for those of time; the dtypes of the weights that were saved; what was told of ways that
    were tried and not taken; and of a run that was broken off after half of its steps, the metrics of those it made again.
    """

    steps: list[dict[str, Any]]
    saved: frozenset[str]
    fallbacks: tuple[str, ...] = ()
    again: list[dict[str, Any]] | None = None


def trained(case: Case, folder: Path, *, cpu: bool = False) -> Trained:
    """Runs it in a folder, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(case.recipe(folder, cpu=cpu)))
    with hearing() as heard:
        steps = _steps(recipe, folder)
    again = None
    if case.resumed:
        half = len(steps) // 2
        shutil.rmtree(folder / "final")
        shutil.rmtree(folder / f"checkpoint-{len(steps)}")
        again = _steps(recipe, folder)[half:]
    return Trained(steps, _saved(folder / "final"), tuple(told.sentence for told in heard if told.rule in TRIED), again)


def apart(one: Trained, other: Trained, small: float = 1e-3) -> float:
    """The largest relative difference of losses and norms of gradients, step by step; below `small`, relative to that."""
    pairs = zip(one.steps, other.steps, strict=True)
    return max(abs(a[name] - b[name]) / max(abs(b[name]), small) for a, b in pairs for name in COMPARED)


def _steps(recipe: Path, folder: Path) -> list[dict[str, Any]]:
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        run(load_recipe(recipe))
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def _saved(folder: Path) -> frozenset[str]:
    with safe_open(next(folder.rglob("*.safetensors")), "pt") as file:
        return frozenset(str(file.get_slice(name).get_dtype()) for name in file.keys())  # noqa: SIM118
