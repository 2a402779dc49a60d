"""GRPO with vLLM as a server on the CPU: whole `train()` calls of ours with that engine, and with transformers.

Two processes work at once, so only the clock on the wall is of both. TRL takes no part: see `WITHOUT_TRL`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

from agreement import of_work
from results import Result
from timing import Times, least, once
from training import TRAININGS, Run, make_policy, ours_grpo

NAME, OURS, PLAIN = "train-grpo-vllm", "ours", "ours, transformers"
ROUNDS = 2
WITHOUT_TRL = "not measured: GRPOTrainer sends weights to a server by NCCL, and ends where it finds no GPU"


def run_trainings() -> list[Result]:
    """The rows of both engines, and one of TRL that says why it has no figure; or that vLLM is not installed."""
    plan = TRAININGS["train-grpo"].plan
    shape = plan.described()
    absent = [Result(NAME, "TRL", shape, note=WITHOUT_TRL)]
    if find_spec("vllm") is None:
        return [Result(NAME, OURS, shape, note="not measured: vLLM is not installed"), *absent]
    from posttrain import VLLMEngine
    from posttrain.settings.rollout import VLLMConfig

    model, tokenizer, _ = make_policy(plan)
    tokenizer.eos_token = None  # answers of one length: no token ends one
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    places = 1 + plan.rows * plan.group
    engine = VLLMEngine(model, tokenizer, VLLMConfig(mode="server", max_num_seqs=places))
    try:
        makes: dict[str, Callable[[], Run]] = {OURS: partial(ours_grpo, plan, engine), PLAIN: partial(ours_grpo, plan)}
        first = {name: make() for name, make in makes.items()}
        for run in first.values():
            run.train()
        rows = of_work(NAME, shape, first)
        seen: dict[str, list[Times]] = {name: [] for name in makes}
        for _ in range(ROUNDS):
            for name, make in makes.items():
                run = make()
                gc.collect()
                seen[name].append(once(run.train))
    finally:
        engine.close()
    times = {name: least(each) for name, each in seen.items()}
    note = {OURS: "seconds of the processor are the trainer's alone"}
    made = {name: replace(row, **vars(times[name]), rounds=ROUNDS, note=note.get(name, "")) for name, row in rows.items()}
    by_clock = times[PLAIN].wall / times[OURS].wall
    made[PLAIN] = replace(made[PLAIN], against=OURS, ratio_wall=by_clock)
    return [*made.values(), *absent]
