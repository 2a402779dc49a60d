"""A rehearsal fails on what it is there for, and what it is held to is true of the code."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import posttrain
from gpu import check, runtime
from gpu.cases import BF16, BFLOAT16, FLOAT32, Case, cases
from gpu.gates import (
    Figures,
    allowed_waits,
    as_entries,
    committed_figures,
    dtype_faults,
    fallback_faults,
    kernel_faults,
    number_faults,
    wait_faults,
)
from gpu.seen import OTHER, STEP, Line, Product, Seen
from gpu.trained import Trained
from posttrain import load_recipe
from posttrain.telling import hearing, tell

SOUND = Trained([{"loss": 1.0, "grad_norm": 2.0}, {"loss": 0.5, "grad_norm": 1.0}], frozenset({"F32"}))
HERE = Line("train/loop.py Loop.step", "x = y.item()")
LINES = {line.strip() for path in Path(posttrain.__file__).parent.rglob("*.py") for line in path.read_text().splitlines()}


def seen(of: str, *, makes: str | None = None, summed: bool = True, logits: bool = False, phase: str = STEP) -> Seen:
    made = Seen(weights={"weights torch.float32", "optimizer torch.float32"})
    made.products[phase, Product(of, makes or of, summed, logits), HERE] = 1
    return made


def first(faults: Iterator[str]) -> str:
    return next(faults)


def test_wrong_dtypes_are_faults() -> None:
    case, narrow = Case("sft", BF16), seen("bfloat16")
    assert not [*dtype_faults(case, narrow, SOUND)]
    assert not [*dtype_faults(case, seen("float32", summed=False), SOUND)]  # of rotary embeddings
    assert not [*dtype_faults(case, seen("float32", phase=OTHER), SOUND)]
    assert "a matrix product of float32" in first(dtype_faults(case, seen("float32"), SOUND))
    assert "a matrix product of bfloat16" in first(dtype_faults(replace(case, precision=FLOAT32), narrow, SOUND))
    assert "logits of float32" in first(dtype_faults(case, seen("bfloat16", makes="float32", logits=True), SOUND))
    narrow.weights.add("weights torch.bfloat16")
    assert "masters" in first(dtype_faults(case, narrow, SOUND))
    assert "saved as F32, not BF16" in first(dtype_faults(Case("sft", BFLOAT16), seen("bfloat16"), SOUND))


def test_a_way_that_was_not_taken_is_a_fault() -> None:
    fell_back = replace(SOUND, fallbacks=("Qwen2: it fails, so that packed rows are attended to block by block.",))
    assert not [*fallback_faults(Case("sft", BF16), SOUND)]
    assert not [*fallback_faults(Case("sft", FLOAT32), fell_back)]
    assert "block by block" in first(fallback_faults(Case("sft", BF16), fell_back))


def test_other_numbers_than_the_cpus_are_faults() -> None:
    steps = [dict(step) for step in SOUND.steps]
    steps[1]["grad_norm"] *= 1 + 2e-5
    other = replace(SOUND, steps=steps)
    assert not [*number_faults(SOUND, SOUND)] and "2.0e-05" in first(number_faults(other, SOUND))
    assert [*number_faults(replace(SOUND, steps=[{"loss": float("nan"), "grad_norm": 1.0}] * 2), SOUND)]
    assert not [*number_faults(replace(SOUND, again=SOUND.steps[1:]), None)]
    assert "resumed" in first(number_faults(replace(SOUND, again=SOUND.steps[:1]), None))


def test_kernels_five_percent_over_are_a_fault() -> None:
    committed = {"a": Figures(100, 2)}
    assert not [*kernel_faults("a", Figures(105, 2), committed)]
    assert "106 kernels" in first(kernel_faults("a", Figures(106, 2), committed))
    assert "no committed figure" in first(kernel_faults("b", Figures(1, 0), committed))


def test_waits_and_their_list_are_held_to_each_other(tmp_path: Path) -> None:
    other = replace(HERE, text="z.tolist()")
    assert not [*wait_faults({HERE: "item"}, {HERE: "why"}, whole=True)]
    assert "is not in waits.yaml" in first(wait_faults({HERE: "item", other: "copy"}, {HERE: "why"}, whole=True))
    assert "has no reason" in first(wait_faults({HERE: "item"}, {HERE: " "}, whole=True))
    assert "does not wait any more" in first(wait_faults({HERE: "item"}, {HERE: "why", other: "why"}, whole=True))
    assert not [*wait_faults({HERE: "item"}, {HERE: "why", other: "why"}, whole=False)]
    (tmp_path / "waits.yaml").write_text(as_entries({HERE: "item", other: "copy"}))
    assert allowed_waits(tmp_path / "waits.yaml") == {HERE: "", other: ""}


def test_a_wait_is_noted_with_the_line_of_the_package_that_it_came_through() -> None:
    noted = Seen()
    with hearing(lambda *_: noted.wait("item")):
        tell("a-rule", "A sentence.")
    [(phase, line, what)] = noted.waits
    assert (phase, what) == (OTHER, "item") and line.at == "telling.py _Hearing.is_new" and line.text in LINES


def test_the_lists_in_the_repository_are_of_this_code() -> None:
    """What a rehearsal would say of them, as far as it can be seen without one."""
    names = [case.name for case in cases()]
    assert len(names) == len(set(names)) and set(committed_figures()) == set(names)
    listed = allowed_waits()
    assert listed and all(why.strip() for why in listed.values())
    assert [line for line in listed if line.text not in LINES] == []


def test_every_case_is_a_recipe(tmp_path: Path) -> None:
    for number, case in enumerate(cases()):
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(case.recipe(tmp_path / "run")))
        assert load_recipe(path).training.layout == case.layout


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch is a build for CUDA")
def test_without_a_build_for_cuda_or_a_gpu_a_sentence_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["check"])
    with pytest.raises(SystemExit, match="build for the CPU"):
        runtime.compiled()
    assert check.main() == 4 and "There is no GPU" in capsys.readouterr().err
