"""Samples and evaluates in this process alone, joins the other ranks, and does both again with them, in lockstep.

Started by test_lockstep.py with torchrun. Rank 0 writes what both have seen.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from posttrain.distributed import ranks
from posttrain.distributed.launch import leave
from posttrain.distributed.sharding import is_sharded, shard
from posttrain.estimator.batch import Request
from posttrain.execution.evaluation import Evaluation, evaluate
from posttrain.rewards.grading import Grade, Verdict
from posttrain.rollout import hf
from posttrain.rollout.engine import Completion, Sampling
from posttrain.settings.distributed import DistributedConfig
from tiny import make_model, make_problems

SAMPLING = Sampling(max_tokens=12, temperature=1.7, seed=5)
REQUESTS = [Request([60 + i] * (1 + i % 5), n=1 + i % 4, question=i) for i in range(12)]
DEALT = {  # which requests each of two ranks is given; a part has at most four rows
    "unequal": (range(9), range(9, 12)),
    "one rank without": (range(12), range(0)),
    "the other without": (range(0), range(12)),
    "none at all": (range(0), range(0)),
}


class Grader:
    """Right or wrong by the sum of the letters; notes what it has graded."""

    reads_cut_off = True

    def __init__(self) -> None:
        self.graded: list[str] = []

    def grade(self, completion: str, prompt: str, answer: str) -> Grade:
        self.graded.append(prompt)
        return Grade(Verdict.RIGHT if sum(map(ord, completion)) % 2 else Verdict.WRONG, completion[:1])

    def equal(self, first: str, second: str) -> bool:
        return first[:1] == second[:1]


class Forwards:
    """Counts the forward passes of a model since it was last asked."""

    def __init__(self, model: Any) -> None:
        self._count = 0
        model.register_forward_pre_hook(self._one_more)

    def _one_more(self, *_: Any) -> None:
        self._count += 1

    def since(self) -> int:
        count, self._count = self._count, 0
        return count


def plain(groups: list[list[Completion]]) -> list[list[Any]]:
    return [[[one.tokens.tolist(), one.logprobs.tolist(), one.finish] for one in group] for group in groups]


def evaluated(engine: Any, tokenizer: Any, problems: Sequence[Any]) -> tuple[Evaluation, list[str]]:
    grader: Any = Grader()
    return evaluate(engine, tokenizer, problems, grader, SAMPLING, samples=3, ks=[2]), grader.graded


def main() -> None:
    hf.ROWS = 4
    model, tokenizer = make_model()
    problems = make_problems(tokenizer, rows=7)
    forwards, alone = Forwards(model), hf.HFEngine(model, tokenizer)
    expected = {count: evaluated(alone, tokenizer, problems[:count])[0] for count in (7, 1)}
    facts: dict[str, Any] = {"expected": plain(alone.generate(REQUESTS, SAMPLING)), "dealt": {}, "evaluations": {}}
    ranks.join(60.0, cpu=True)
    engine = hf.HFEngine(model, tokenizer, lockstep=True)
    for name, dealt in DEALT.items():
        mine, seen = [REQUESTS[i] for i in dealt[ranks.rank()]], []
        for one in (alone, engine):
            forwards.since()
            seen.append((plain(one.generate(mine, SAMPLING)), forwards.since()))
        facts["dealt"][name] = ranks.all_gather(seen, "what came of it")
    for count, whole in expected.items():
        found, graded = evaluated(engine, tokenizer, problems[:count])
        same = found == whole and found.metrics("x") == whole.metrics("x")
        facts["evaluations"][count] = ranks.all_gather((same, graded), "the evaluations")
    shard(model, DistributedConfig(mode="fsdp2"), bf16=False)
    mine = [REQUESTS[i] for i in DEALT["unequal"][ranks.rank()]]
    facts["spread"] = ranks.all_gather((is_sharded(model), plain(engine.generate(mine, SAMPLING))), "the spread model")
    facts["pass@1"] = expected[7].estimates["pass@1"].mean
    facts["world"] = ranks.world()
    if ranks.rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(facts))
    dist.destroy_process_group()
    leave(SystemExit())


if __name__ == "__main__":
    main()
