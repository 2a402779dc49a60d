"""`make bench-gpu`: one GPU, in under ten minutes; prints ceilings, floors, ours and TRL's, and what must be shown.

Writes benchmarks/results/gpu.jsonl. In order: what the device can do; the output layer alone; steps of SFT, DPO and GRPO on
models of the shapes of Qwen2.5, random weights, products in bfloat16; waits and operations; whole trainings; curves.
What no longer fits into `--budget` seconds is left out and said. TRL, Liger and datasets are compared where they are
installed. A figure that is missed, or was not measured, is told at the end, and the exit status is 1. `--rehearse` runs it
with tiny shapes, on a CPU where there is no device, holds no figure to anything, and writes nothing unless `--output` says
where.
"""

from __future__ import annotations

from quiet import settle  # isort: skip  # what it sets must be set before others are imported

import argparse
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import head
import our_steps
import torch
from agreement import of_steps
from gpu_layers import layers, waits
from gpu_scale import Scale, full, tiny
from head import HeadShape
from results import GPU_RESULTS, Result, machine, merged, read, versions, write
from steps import Case, dpo_case, grpo_case, sft_case
from targets import GPU_TARGETS, OF_PEAK, PEAK, judged
from timing import Contender, Times, in_turn, least, once, ratios

Task = Callable[[], list[Result]]
REPEATS = 10
"""Of one matrix product or copy, and of a head."""


def ceilings(scale: Scale) -> list[Result]:
    """What the device does at best: matrix products of random numbers, and copies within its memory."""
    place: dict[str, Any] = {"device": scale.small.device, "dtype": getattr(torch, scale.small.dtype)}
    a, b = (torch.randn(scale.square, scale.square, **place) for _ in range(2))
    out = torch.empty_like(a)
    product = _least(lambda: torch.mm(a, b, out=out))
    source = torch.zeros(scale.copied, dtype=torch.uint8, device=place["device"])
    target = torch.empty_like(source)
    copy = _least(lambda: target.copy_(source))
    speed = f"{2 * scale.square**3 / product.wall / 1e12:.1f} TFLOP/s"
    bandwidth = f"{2 * scale.copied / copy.wall / 1e12:.2f} TB/s"
    shape = {"rows": scale.square, "bytes": scale.copied}
    done = (("matrix product", product, speed), ("copy", copy, bandwidth))
    return [Result("ceilings", name, shape, **vars(took), rounds=REPEATS, note=note) for name, took, note in done]


def heads(shape: HeadShape, scale: Scale) -> list[Result]:
    """The output layer alone, with the rate of its 6 N H V operations."""
    makes: dict[str, Callable[[], Contender]] = {
        "ours": partial(head.ours, shape),
        "ours, any loss": partial(head.ours, shape, head.ours_head_for_any_loss),
    }
    if shape.positions * shape.vocabulary <= scale.naive_logits:
        makes["naive"] = partial(head.naive, shape)
        if shape.device != "cpu":
            makes["naive, compiled"] = partial(head.compiled, shape)
    makes["three products"] = partial(head.floor, shape, rows=4096)
    if has_trl():
        makes["TRL"] = partial(head.trl, shape)
    if head.has_linear_cross_entropy():
        makes["torch linear_cross_entropy"] = partial(head.linear_cross_entropy, shape, rows=1024)
    if head.has_liger() and shape.device != "cpu":
        makes["Liger"] = partial(head.liger, shape)
    name = f"head-{shape.positions}-{shape.hidden}-{shape.vocabulary}"
    rows = compared(Case(name, asdict(shape), makes, REPEATS), scale.without)
    work = 6 * int(shape.share * shape.positions) * shape.hidden * shape.vocabulary
    return [replace(row, note=f"{work / row.wall / 1e12:.1f} TFLOP/s of 6NHV") if row.wall else row for row in rows]


def steps(scale: Scale) -> Iterator[Case]:
    """Steps of SFT on both models, of DPO and of GRPO; first those of ours alone that are held to the device's peak."""
    packed = sft_case("sft-16k", scale.small, count=scale.packed, length=scale.longest)
    sizes: dict[str, Any] = {"questions": scale.questions // 2, "answer": scale.answer}  # of more, TRL takes over 80 GB
    large = grpo_case("grpo-large", scale.large, size=scale.group, prompt=scale.prompt, **sizes)
    for case in (packed, large):
        ours: Any = case.makes["ours"]
        makes = {"ours": ours, "ours, layers compiled": partial(_uncounted, partial(ours, layers=our_steps.compiled))}
        if head.has_liger() and scale.small.device != "cpu":
            makes["ours, layers of Liger"] = partial(_uncounted, partial(ours, layers=our_steps.of_liger))
        yield replace(case, makes=makes)
    for name, spec, count in (("small", scale.small, scale.documents), ("large", scale.large, scale.documents // 2 or 1)):
        yield sft_case(f"sft-{name}", spec, count=count, mean=scale.mean, longest=scale.longest)
    yield dpo_case("dpo", scale.small, pairs=scale.questions, prompt=2 * scale.prompt, answer=scale.answer)
    yield grpo_case("grpo", scale.small, size=scale.group, prompt=scale.prompt, **sizes)


def _uncounted(make: Callable[[], Contender]) -> Contender:
    contender = make()
    contender.counted = False
    return contender


def curves(scale: Scale) -> Iterator[Case]:
    """GRPO's update against the prompt and the group, SFT's step against the vocabulary."""
    sizes: dict[str, Any] = {"questions": 2, "answer": scale.answer}
    for prompt in scale.prompts:
        yield grpo_case(f"prompt-{prompt}", scale.small, size=8, prompt=prompt, **sizes)
    for group in scale.groups:
        yield grpo_case(f"group-{group}", scale.small, size=group, prompt=scale.prompt, **sizes)
    for vocabulary in scale.vocabularies:
        spec = replace(scale.small, vocabulary=vocabulary)
        yield sft_case(f"vocabulary-{vocabulary}", spec, count=8, length=scale.longest, packed=False)


def trainings(scale: Scale) -> Iterator[tuple[str, Task]]:
    """Whole `train()` calls, where TRL and datasets are installed: one to agree and warm up, one that is timed."""
    if not has_trl() or "TRL" in scale.without:
        return
    from cpu import run_training
    from training import TRAININGS

    sizes = {"train-sft": scale.documents, "train-dpo": scale.questions, "train-grpo": scale.questions}
    for name, rows in sizes.items():
        given = TRAININGS[name]
        exact = given.exact and scale.small.dtype == "float32"  # AdamW makes whole steps of bfloat16's rounding
        plan = replace(
            given.plan, spec=scale.small, rows=rows, prompt=scale.prompt, group=scale.group, answer=scale.answer[1]
        )
        yield name, partial(run_training, replace(given, plan=plan, exact=exact, rounds=1))


def compared(case: Case, without: Sequence[str] = ()) -> list[Result]:
    """Parity, then times, then the memory that a step takes above what is held, where there is a device to be asked."""
    left_out = [*without, *([] if has_trl() else ["TRL"])]
    makes = {name: make for name, make in case.makes.items() if not any(word in name for word in left_out)}
    contenders, broken = tried(case, makes)
    if not contenders:
        return broken
    rows = of_steps(case.name, dict(case.shape), contenders)
    timed = {name: each for name, each in contenders.items() if rows[name].agrees is not False}
    times = in_turn(timed, case.rounds)
    memory = {name: _device_peak(each) for name, each in timed.items()} if torch.cuda.is_available() else {}
    made: list[Result] = []
    for name, row in rows.items():
        against = contenders[name].against
        if name in times:
            figures = {OF_PEAK: case.work / times[name].wall / PEAK} if case.work else {}
            row = replace(row, **vars(times[name]), rounds=case.rounds, peak_bytes=memory.get(name), figures=figures)
        if name != against and {name, against} <= times.keys():
            peak = memory[name] / memory[against] if memory.get(against) else None
            row = replace(row, **ratios(times[name], times[against]), against=against, peak_ratio=peak)
        tokens = case.shape.get("tokens")
        if tokens and row.wall:
            row = replace(row, note=f"{tokens / row.wall:.0f} tokens/s")
        made.append(row)
    return made + broken


def tried(case: Case, makes: Mapping[str, Callable[[], Contender]]) -> tuple[dict[str, Contender], list[Result]]:
    """Contenders after their first step; and rows of those that failed in it, which take no other with them."""
    able, broken = dict[str, Contender](), list[Result]()
    for name, make in makes.items():
        try:
            contender = make()
            contender.outcome()
        except Exception as error:
            traceback.print_exception(error)
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            broken.append(Result(case.name, name, dict(case.shape), note=f"failed: {said}"))
            if name == "ours":
                return {}, broken
        else:
            contender.clear()
            able[name] = contender
    return able, broken


def tasks(scale: Scale) -> Iterator[tuple[str, Task]]:
    """All there is, in order."""
    yield "ceilings", partial(ceilings, scale)
    for shape in scale.heads:
        yield f"head {shape.positions} × {shape.hidden} × {shape.vocabulary}", partial(heads, shape, scale)
    for case in steps(scale):
        yield case.name, partial(compared, case, scale.without)
    yield "layers", partial(layers, scale)
    yield "waits", partial(waits, scale)
    yield from trainings(scale)
    for case in curves(scale):
        yield case.name, partial(compared, case, scale.without)


def attempted(name: str, task: Task) -> list[Result]:
    """The rows of a task; one row that says so where it failed: what comes after it is measured all the same."""
    try:
        return task()
    except Exception as error:
        traceback.print_exception(error)
        return [Result(name, "all", note=f"failed: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")]
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def has_trl() -> bool:
    """Whether TRL and datasets are installed."""
    return find_spec("trl") is not None and find_spec("datasets") is not None


def told(row: Result) -> str:
    """A row for the terminal."""
    parts = [f"  {row.implementation:28s}"]
    if row.wall is not None:
        parts.append(f"{1000 * row.wall:9.2f} ms")
    parts += [] if row.ratio_wall is None else [f"{row.ratio_wall:.2f} × ours"]
    if row.peak_bytes is not None:
        parts.append(f"{row.peak_bytes / 2**20:.0f} MB")
    if row.agrees is not None:
        parts.append(f"differs by {row.difference:.1e}" + ("" if row.agrees else ": PARITY FAILED"))
    parts += [f"{name} {figure:.4g}" for name, figure in row.figures.items()]
    return "  ".join([*parts, row.note])


def run(scale: Scale, budget: float, device: str, only: Sequence[str] = ()) -> Iterator[list[Result]]:
    """The rows of one task after another, printed, until the budget of seconds is spent. only: words, of which the name of a
    task has one.
    """
    started, left_out = time.monotonic(), list[str]()
    known = {"machine": machine(torch.get_num_threads(), device), "versions": versions()}
    for name, task in tasks(scale):
        if only and not any(word in name for word in only):
            continue
        if time.monotonic() - started > budget:
            left_out.append(name)
            continue
        began = time.monotonic()
        rows = [replace(row, **known) for row in attempted(name, task)]
        print(f"{name}, {time.monotonic() - began:.0f} s", *map(told, rows), sep="\n", flush=True)
        yield rows
    print(f"{time.monotonic() - started:.0f} s in all", *(f"left out for time: {name}" for name in left_out), sep="\n")


def main() -> None:
    """Runs everything and writes the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--without", nargs="*", default=[], help="words: contenders that have one in their name are left out")
    parser.add_argument("--only", nargs="*", default=[], help="words: tasks that have one in their name, and no others")
    parser.add_argument("--budget", type=float, default=510.0, help="seconds after which nothing new is begun")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no GPU; --rehearse runs it on a CPU with tiny shapes")
    if options.without:
        print(f"Left out are contenders with one of these words in their name: {', '.join(options.without)}.")
    settle()
    device = "" if options.rehearse else torch.cuda.get_device_name()
    output = options.output or (None if options.rehearse else GPU_RESULTS)
    rows: list[Result] = []
    scale = replace(tiny() if options.rehearse else full(), without=tuple(options.without))
    for made in run(scale, options.budget, device, options.only):
        rows += made
        if output is not None:
            write(merged(read(output), rows), output)
    lines, failed = judged(rows, GPU_TARGETS, held=not options.rehearse)
    print(*lines, sep="\n")
    sys.exit(failed)


def _least(call: Callable[[], Any]) -> Times:
    call()
    return least([once(call) for _ in range(REPEATS)])


def _device_peak(contender: Contender) -> int:
    contender.clear()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contender.step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    main()
