"""What a step costs the host beside the model: 2,048 answers of up to 32 k tokens are collected, judged, credited, counted,
dealt and made into micro-batches. No forward pass is made, and no GPU would shorten it.

`python benchmarks/host.py` measures here, on one thread; `--questions 128 --answers 8 --mean 1400 --longest 4096` is another
size. It prints a line of JSON: seconds by the clock and of the processor, of each part those outside the kernel; the resident
memory above the start at its highest; and the bytes that the collection's arrays hold for each token of an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from results import Result

T = TypeVar("T")
PROMPT, MICRO_BATCH = 400, 16_384  # tokens of a question, and of a micro-batch
SIZE = {"questions": 128, "answers": 16, "mean": 5800, "longest": 32_768}


def main() -> None:
    """Measures here."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    print(json.dumps(measured(**vars(parser.parse_args()))))


def run_host() -> list[Result]:
    """The row of the size above, measured in a process of its own, whose memory nobody has touched, on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, __file__], capture_output=True, text=True, env=environment)
    if run.returncode:
        raise RuntimeError(f"host: {run.stderr[-2000:]}")
    found = json.loads(run.stdout.splitlines()[-1])
    shape = {**SIZE, "tokens": found.pop("tokens"), "micro_batches": found.pop("micro_batches")}
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in found.pop("parts").items())
    figures = {"bytes a token": found.pop("bytes_a_token")}
    return [Result("host", "ours", shape, rounds=1, figures=figures, note=told, **found)]


def measured(questions: int, answers: int, mean: int, longest: int) -> dict[str, Any]:
    """Seconds by part, bytes above the start, and what it was measured of."""
    import torch
    from models import Spec, make_model, make_tokenizer
    from our_steps import arguments
    from timing import Times, added, once

    from posttrain import Completion, PostTrainer, Sampling, build_algorithm
    from posttrain.data.rows import Problem
    from posttrain.train.options import Execution

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    spec = Spec(vocabulary=4096, hidden=32, intermediate=32, layers=1, heads=2, kv_heads=1, positions=65_536)
    lengths = np.minimum(longest, np.maximum(16, rng.lognormal(np.log(mean) - 0.245, 0.7, questions * answers))).astype(int)

    class Engine:
        """Has its answers ready: what they cost is not ours."""

        def generate(self, requests: Sequence[Any], sampling: Sampling) -> list[list[Completion]]:
            left = iter(lengths)
            return [[self._one(int(next(left)), sampling.step) for _ in range(request.n)] for request in requests]

        def _one(self, length: int, version: int) -> Completion:
            return Completion(rng.integers(2, 4096, length), -rng.random(length), "stop", version)

        def sync(self, model: Any, version: int) -> None: ...

        def close(self) -> None: ...

    class Even:
        """A reward that reads texts."""

        name = "even"

        def judge(self, group: Any) -> list[float]:
            return [float(len(text) % 2) for text in group.completions]

        def close(self) -> None: ...

    problems = [
        Problem([int(one) for one in rng.integers(2, 4096, PROMPT)], {"prompt": str(i)}, f"question {i}")
        for i in range(questions)
    ]
    engine = Engine()
    trainer = PostTrainer(
        make_model(spec),
        build_algorithm("dapo", rollouts=answers, clip_high=0.28, dynamic_sampling=False),
        tokenizer=make_tokenizer(spec.vocabulary),
        train_dataset=problems,
        args=arguments(spec, "host", questions * answers, max_steps=1),
        rewards=[Even()],
        engine=engine,
        sampling=Sampling(max_tokens=longest),
        execution=Execution(micro_batch_tokens=MICRO_BATCH),
    )
    collector, learner, model = trainer.run_state.collector, trainer._learner, trainer.model
    learner._bounds["rows"] = None
    assert model is not None
    took: dict[str, Times] = {}

    def timed(name: str, call: Callable[[], T]) -> T:
        made: list[T] = []
        times = once(lambda: made.append(call()))
        took[name] = added(took[name], times) if name in took else times
        return made[0]

    honest = engine.generate
    engine.generate = lambda *asked: timed("sampling", lambda: honest(*asked))  # type: ignore[method-assign]
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    collection = timed("collecting", lambda: collector.collect(model, 0, 0.0))
    took["collecting"] = added(took["collecting"], took.pop("sampling"), -1)
    opened = timed("advantages", lambda: learner.open(model, collection))
    bytes_held = held(opened)
    del collection
    step = timed("counting and dealing", lambda: learner.step(opened, 0, 0.0))
    for micro in step.micro:
        timed("micro-batches", lambda micro=micro: learner._there(learner._made(step.collection, micro)))
    whole = [*took.values()]
    return {
        **{clock: sum(getattr(times, clock) for times in whole) for clock in ("wall", "user", "system")},
        "parts": {name: times.user for name, times in took.items()},
        "peak_bytes": _status("VmHWM") - before,
        "bytes_a_token": bytes_held / int(lengths.sum()),
        "tokens": int(lengths.sum()),
        "micro_batches": len(step.micro),
    }


def held(collection: Any) -> int:
    """Bytes of the memory behind a collection's arrays, each piece once, however many look at it."""
    arrays = [one for row in collection.rows for one in (row.prompt, row.completion, row.mask)]
    pieces = {owner.ctypes.data: owner.nbytes for owner in map(_owner, [*arrays, collection.flat.lengths])}
    storages = [field.untyped_storage() for field in collection.flat.fields.values()]
    return sum((pieces | {storage.data_ptr(): storage.nbytes() for storage in storages}).values())


def _owner(array: Any) -> Any:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _status(name: str) -> int:
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
