"""What a step costs the host beside the model: 2,048 answers of up to 32 k tokens are collected, judged, credited, counted,
dealt and made into micro-batches. No forward pass is made, and no GPU would shorten it.

`python benchmarks/host.py` measures here, on one thread; `--questions 128 --answers 8 --mean 1400 --longest 4096` is another
size. It prints a line of JSON: the processor's seconds of each part, and the resident memory above the start at its highest.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
PROMPT, MICRO_BATCH = 400, 16_384  # tokens of a question, and of a micro-batch
SIZE = {"questions": 128, "answers": 16, "mean": 5800, "longest": 32_768}


def main() -> None:
    """Measures here."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in SIZE.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    print(json.dumps(measured(**vars(parser.parse_args()))))


def measured(questions: int, answers: int, mean: int, longest: int) -> dict[str, Any]:
    """Seconds by part, bytes above the start, and what it was measured of."""
    import torch
    from models import Spec, make_model, make_tokenizer
    from our_steps import arguments

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
    took: dict[str, float] = {}

    def timed(name: str, made: Callable[[], T]) -> T:
        began = time.process_time()
        result = made()
        took[name] = took.get(name, 0.0) + time.process_time() - began
        return result

    honest = engine.generate
    engine.generate = lambda *asked: timed("sampling", lambda: honest(*asked))  # type: ignore[method-assign]
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    collection = timed("collecting", lambda: collector.collect(model, 0, 0.0))
    took["collecting"] -= took.pop("sampling")
    opened = timed("advantages", lambda: learner.open(model, collection))
    del collection
    step = timed("counting and dealing", lambda: learner.step(opened, 0, 0.0))
    for micro in step.micro:
        timed("micro-batches", lambda micro=micro: learner._local(step.collection, micro))
    return {
        "seconds": took,
        "peak_bytes": _status("VmHWM") - before,
        "tokens": int(lengths.sum()),
        "micro_batches": len(step.micro),
    }


def _status(name: str) -> int:
    [line] = [each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name)]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
