"""What makes a rehearsal fail: wrong dtypes, other numbers than the CPU's, waits that no list has, more kernels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gpu.cases import FLOAT32, Case
from gpu.seen import SAMPLING, STEP, Line, Seen
from gpu.trained import COMPARED, Trained, apart

WAITS, FIGURES = (Path(__file__).with_name(name) for name in ("waits.yaml", "figures.json"))
EXACT = 1e-5
"""Relative: losses and norms of gradients in float32, against the CPU's; sums of the two run in other orders."""
MORE = 0.05
"""By which kernels of a step may exceed the committed figure."""
OF_FILES = {"float32": "F32", "bfloat16": "BF16"}


@dataclass(frozen=True)
class Figures:
    """Of one case, in each step."""

    kernels: int
    waits: int

    @classmethod
    def of(cls, seen: Seen) -> Figures:
        """What was seen."""
        return cls(
            seen.of_step(), round(sum(n for (phase, *_), n in seen.waits.items() if phase == STEP) / max(seen.steps, 1))
        )


def dtype_faults(case: Case, seen: Seen, trained: Trained) -> Iterator[str]:
    """Products, masters and files that have another dtype than the recipe says."""
    for (phase, product, line), _ in sorted(seen.products.items()):
        if phase in (STEP, SAMPLING) and product.summed and product.of != case.products:
            yield f"a matrix product of {product.of} in the {phase}, at {line}"
        if phase == STEP and product.logits and product.makes != product.of:
            yield f"logits of {product.makes} from {product.of}, at {line}"
    for held in sorted(seen.weights - {"weights torch.float32", "optimizer torch.float32"}):
        yield f"{held}: masters and the optimizer's state are float32"
    saved = OF_FILES[case.recipe_dtype]
    if trained.saved != {saved}:
        yield f"the model was saved as {', '.join(sorted(trained.saved))}, not {saved}"


def fallback_faults(case: Case, trained: Trained) -> Iterator[str]:
    """Ways that are tried at the start and were not taken, where they can be; float32 has no kernel for any length."""
    if case.products == "float32":
        return
    for sentence in trained.fallbacks:
        yield f"a way that was tried was not taken: {sentence}"


def number_faults(trained: Trained, cpu: Trained | None, bound: float = EXACT, small: float = 1e-3) -> Iterator[str]:
    """Steps that are not the CPU's; and, of a run that was broken off, steps that are not those of the whole run."""
    if cpu is not None and not (difference := apart(trained, cpu, small)) <= bound:
        yield f"{' or '.join(COMPARED)} differs from the CPU's by {difference:.1e}, more than {bound:g}"
    if trained.again is not None and trained.again != trained.steps[-len(trained.again) :]:
        yield "resumed, it makes other steps"


def kernel_faults(name: str, made: Figures, committed: Mapping[str, Figures]) -> Iterator[str]:
    """A step of more kernels than the committed figure allows, or a case that has none."""
    if (before := committed.get(name)) is None:
        yield "there is no committed figure: --write makes it"
    elif made.kernels > before.kernels * (1 + MORE):
        yield f"{made.kernels} kernels a step, more than {before.kernels} and {MORE:.0%}"


def wait_faults(seen: Mapping[Line, str], allowed: Mapping[Line, str], *, whole: bool) -> Iterator[str]:
    """Waits that are not on the list, entries without a reason, and where all cases were run, those that did not occur."""
    for line in sorted(seen.keys() - allowed.keys()):
        yield f"waits for the device in a training step ({seen[line]}), and is not in {WAITS.name}: {line}"
    for line, why in sorted(allowed.items()):
        if not why.strip():
            yield f"has no reason in {WAITS.name}: {line}"
        if whole and line not in seen:
            yield f"does not wait any more; take it out of {WAITS.name}: {line}"


def waits_of_step(seen: Seen) -> dict[Line, str]:
    """Lines that waited inside a training step, and what for."""
    return {line: what for (phase, line, what), _ in seen.waits.items() if phase == STEP}


def allowed_waits(path: Path = WAITS) -> dict[Line, str]:
    """The list in the repository, with its reasons."""
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text()) or []
    return {Line(one["at"], one["line"], one.get("called", "")): one.get("why") or "" for one in entries}


def as_entries(waits: Mapping[Line, str]) -> str:
    """Waits as entries of the list, without their reasons."""
    entries = [{"at": one.at, "line": one.text, **({"called": one.called} if one.called else {}), "why": ""} for one in waits]
    return yaml.safe_dump(entries, sort_keys=False, width=1000, allow_unicode=True)


def committed_figures(path: Path = FIGURES) -> dict[str, Figures]:
    """Of each case, by its name."""
    text = path.read_text() if path.exists() else "{}"
    return {name: Figures(**values) for name, values in json.loads(text).items()}


def write_figures(figures: Mapping[str, Figures], path: Path = FIGURES) -> None:
    """In place of those of the same cases."""
    kept = {name: vars(one) for name, one in {**committed_figures(path), **figures}.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(values)}" for name, values in kept.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def is_exact(case: Case) -> bool:
    """Whether its numbers are the CPU's: in bfloat16 they are those of another order of rounding."""
    return case.precision == FLOAT32
