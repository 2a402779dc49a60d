"""Whole `train()` calls: `PostTrainer` against TRL's trainers on the same model, rows, optimizer, learning rate and steps.

A step takes the whole data set, so that both see the same rows in each step, whatever their order. What is not named here is
at its default on both sides, but: float32 (TRL's default is bfloat16), activations kept (TRL's default is to compute them
again), nothing reported, saved or shown as a bar. Building the trainer is not timed, training is.

Rollouts are sampled by transformers on both sides, with answers of one length (no token ends one), since the samples differ;
what is compared is the work: updates, answers, and their tokens. SFT and DPO must train the same parameters.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from models import Spec, flat, make_model, make_tokenizer, text
from our_steps import SCRATCH, arguments
from rows import Document, Group, documents, groups
from torch import Tensor

from posttrain import Group as Judged
from posttrain import HFEngine, PostTrainer, Sampling, build_algorithm
from posttrain.rollout.engine import RolloutEngine

LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Plan:
    """How large a training is: steps, and rows of each; for rollouts questions × `group` answers of `answer` tokens."""

    spec: Spec
    steps: int
    rows: int
    prompt: int = 128
    group: int = 8
    answer: int = 64

    def described(self) -> dict[str, Any]:
        """For a result's shape."""
        return {**self.spec.described(), "steps": self.steps, "rows": self.rows, "prompt": self.prompt}


@dataclass
class Run:
    """A trainer that is ready: `train` is what is timed. `work` is what it has done, as far as it must be the same."""

    trainer: Any
    start: Tensor
    judged: Tally | None = None

    def train(self) -> None:
        """The whole call, without what it prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer.train()

    @property
    def moved(self) -> Tensor:
        """How far every parameter has moved."""
        return flat(self.trainer.model) - self.start

    @property
    def work(self) -> tuple[int, ...]:
        """Updates; answers and tokens that were judged."""
        counted = () if self.judged is None else (self.judged.answers, self.judged.tokens)
        return (self.trainer.state.global_step, *counted)


@dataclass
class Tally:
    """A reward, the share of even tokens of an answer, for both sides; counts what it judges."""

    answers: int = 0
    tokens: int = 0
    name: str = "even"
    __name__: str = field(default="even", init=False)

    def scores(self, completions: Sequence[Sequence[int]]) -> list[float]:
        """Of these answers."""
        self.answers += len(completions)
        self.tokens += sum(map(len, completions))
        return [sum(token % 2 == 0 for token in tokens) / len(tokens) for tokens in completions]

    def __call__(self, completion_ids: list[list[int]], **_: Any) -> list[float]:
        """As TRL calls it."""
        return self.scores(completion_ids)

    def judge(self, group: Judged) -> list[float]:
        """As we call it."""
        return self.scores(group.tokens)

    def close(self) -> None:
        """There is nothing to end."""


def ours_sft(plan: Plan) -> Run:
    """Our SFT."""
    return _ours(plan, "sft", _demonstrations(documents(plan.rows, plan.spec.vocabulary)), plan.rows)


def ours_dpo(plan: Plan) -> Run:
    """Our DPO."""
    return _ours(plan, "dpo", _preferences(groups(plan.rows, 2, plan.prompt, plan.spec.vocabulary)), plan.rows)


def ours_grpo(plan: Plan, engine: RolloutEngine | None = None) -> Run:
    """Our GRPO, with DAPO's average, TRL's default, and `engine: hf` where no other engine is given."""
    model, tokenizer, tally = make_policy(plan, endless=True)
    online = {
        "rewards": [tally],
        "engine": engine or HFEngine(model, tokenizer),
        "sampling": Sampling(max_tokens=plan.answer),
    }
    algorithm = build_algorithm("dapo", rollouts=plan.group, clip_high=0.2, dynamic_sampling=False)
    args = arguments(plan.spec, "grpo", plan.rows * plan.group, max_steps=plan.steps, learning_rate=LEARNING_RATE)
    trainer = PostTrainer(model, algorithm, tokenizer=tokenizer, train_dataset=_questions(plan), args=args, **online)
    return Run(trainer, flat(model), tally)


def trl_sft(plan: Plan, *, packed: bool = False) -> Run:
    """SFTTrainer, with its default of padded rows, or packing by best fit."""
    model, tokenizer, _ = make_policy(plan)
    options = {"packing": True, "max_length": 512 * plan.rows, "per_device_train_batch_size": 1} if packed else {}
    config = _trl().SFTConfig(**{**_settings(plan, plan.rows), **options})
    data = _demonstrations(documents(plan.rows, plan.spec.vocabulary))
    return Run(_trl().SFTTrainer(model, config, train_dataset=data, processing_class=tokenizer), flat(model))


def trl_dpo(plan: Plan) -> Run:
    """DPOTrainer. Its reference is a second model of the same weights, for it can copy none that has no path."""
    model, tokenizer, _ = make_policy(plan)
    data = _preferences(groups(plan.rows, 2, plan.prompt, plan.spec.vocabulary))
    config = _trl().DPOConfig(**_settings(plan, plan.rows))
    trainer = _trl().DPOTrainer(model, make_policy(plan)[0], config, train_dataset=data, processing_class=tokenizer)
    return Run(trainer, flat(model))


def trl_grpo(plan: Plan) -> Run:
    """GRPOTrainer with transformers' generate."""
    model, tokenizer, tally = make_policy(plan, endless=True)
    config = _trl().GRPOConfig(
        **_settings(plan, plan.rows * plan.group), num_generations=plan.group, max_completion_length=plan.answer
    )
    trainer = _trl().GRPOTrainer(model, tally, config, train_dataset=_questions(plan), processing_class=tokenizer)
    return Run(trainer, flat(model), tally)


def _ours(plan: Plan, name: str, data: Dataset, rows: int) -> Run:
    model, tokenizer, _ = make_policy(plan)
    args = arguments(plan.spec, name, rows, max_steps=plan.steps, learning_rate=LEARNING_RATE)
    return Run(PostTrainer(model, build_algorithm(name), tokenizer=tokenizer, train_dataset=data, args=args), flat(model))


def _trl() -> Any:
    return importlib.import_module("trl")


def make_policy(plan: Plan, *, endless: bool = False) -> tuple[Any, Any, Tally]:
    """Model, tokenizer and reward. What is trained is float32; where the plan says 16 bits, products are, by autocast."""
    model = make_model(plan.spec, endless=endless).float()
    return model, make_tokenizer(plan.spec.vocabulary, endless=endless), Tally()


def _settings(plan: Plan, rows: int) -> dict[str, Any]:
    return {
        "output_dir": str(Path(SCRATCH.name) / "trl"),
        "use_cpu": plan.spec.device == "cpu",
        "bf16": plan.spec.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "per_device_train_batch_size": rows,
        "max_steps": plan.steps,
        "learning_rate": LEARNING_RATE,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def _demonstrations(rows: Sequence[Document]) -> Dataset:
    columns = {"prompt": [text(row.prompt) for row in rows], "completion": [text(row.completion) for row in rows]}
    return Dataset.from_dict(columns)


def _preferences(pairs: Sequence[Group]) -> Dataset:
    chosen, rejected = ([text(pair.answers[side]) for pair in pairs] for side in (0, 1))
    return Dataset.from_dict({"prompt": [text(pair.prompt) for pair in pairs], "chosen": chosen, "rejected": rejected})


def _questions(plan: Plan) -> Dataset:
    asked = groups(plan.rows, 1, plan.prompt, plan.spec.vocabulary)
    return Dataset.from_dict({"prompt": [text(each.prompt) for each in asked]})


@dataclass(frozen=True)
class Training:
    """A case of whole trainings. exact: parameters must be the same; else the work."""

    name: str
    plan: Plan
    makes: dict[str, Callable[[Plan], Run]]
    exact: bool
    rounds: int = 3


def _packed(plan: Plan) -> Run:
    return trl_sft(plan, packed=True)


TRAININGS: dict[str, Training] = {
    each.name: each
    for each in (
        Training(
            "train-sft",
            Plan(Spec(), steps=3, rows=8),
            {"TRL": trl_sft, "ours": ours_sft, "TRL packed": _packed},
            exact=True,
        ),
        Training("train-dpo", Plan(Spec(), steps=3, rows=4), {"TRL": trl_dpo, "ours": ours_dpo}, exact=True),
        Training("train-grpo", Plan(Spec(), steps=2, rows=4, answer=48), {"TRL": trl_grpo, "ours": ours_grpo}, exact=False),
    )
}
