"""What is run on a GPU, real or pretended: every algorithm in every precision, and layouts, heads, adapters and the like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from posttrain import build_algorithm
from posttrain.algorithms import ALGORITHMS
from posttrain.model.load import load
from posttrain.settings.doors.kinds import name_of
from posttrain.settings.model import FromScratch, ModelConfig

LAYERS, STEPS, LONGEST = 2, 2, 6
TOKENIZER = {"characters": "0123456789+-*=#"}
"""Of the model; optimizer steps; tokens of an answer, at most."""
FLOAT32, BF16, BFLOAT16 = "float32", "bf16 over float32", "bfloat16"
PRECISIONS: dict[str, tuple[str, bool | None]] = {
    FLOAT32: ("float32", False),
    BF16: ("float32", True),
    BFLOAT16: ("bfloat16", None),
}
"""model.dtype and training.bf16."""
REWARDS = [
    {"name": "format_length", "form": "pattern", "pattern": "[0-9+*=#-]*", "peak": 0.5},
    {"name": "task", "weight": 0, "verdict": True},
]


@dataclass(frozen=True)
class Case:
    """A recipe of a few steps. model, training, rollout, top: more of these parts of it. resumed: it is broken off and goes
    on."""

    algorithm: str
    precision: str = FLOAT32
    layout: str = "shared"
    head: str = "one_pass"
    tells: str = ""
    model: dict[str, Any] = field(default_factory=dict[str, Any])
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    rollout: dict[str, Any] = field(default_factory=dict[str, Any])
    top: dict[str, Any] = field(default_factory=dict[str, Any])
    resumed: bool = False

    @property
    def name(self) -> str:
        """One of its own."""
        return ", ".join(part for part in (self.algorithm, self.precision, self.layout, self.head, self.tells) if part)

    @property
    def products(self) -> str:
        """The dtype of matrix products."""
        return "float32" if self.precision == FLOAT32 else "bfloat16"

    @property
    def recipe_dtype(self) -> str:
        """What `model.dtype` says."""
        return PRECISIONS[self.precision][0]

    def recipe(self, folder: Path, *, cpu: bool = False) -> dict[str, Any]:
        """Of a run in `folder`."""
        needs = build_algorithm(self.algorithm, **_needed(self.algorithm)).needs
        dtype, bf16 = PRECISIONS[self.precision]
        data: dict[str, Any] = {"train": {"task": "chain", "split": "train", "rows": 64}}
        if needs.weight != "none" or needs.baseline == "value":
            data["train"]["wrong"] = 0.3  # with which its rows say what they, or answers to them, are worth
        if needs.preference or needs.weight == "label":
            data["train"] = {"path": str(_pairs(folder.parent, labelled=not needs.preference))}
        if needs.crossed:
            data["train"] = {"path": str(_crossed(folder.parent))}
        if needs.demonstrations and not needs.own_demonstrations:
            data["demonstrations"] = {"task": "chain", "split": "validation", "rows": 32}
        if "eval" in self.top:
            data["eval"] = {"held_out": {"task": "chain", "split": "validation", "rows": 8}}
        model = {
            "from_scratch": {
                "hidden_size": 64,
                "intermediate_size": 96,
                "num_hidden_layers": LAYERS,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "initializer_range": 0.08,
                **self.model.get("from_scratch", {}),
            },
            "tokenizer": TOKENIZER,
            "dtype": dtype,
        }
        if needs.given_teacher:
            model["teachers"] = {"wide": {"name": str(_teacher(folder.parent))}}
        training = {
            "max_steps": STEPS,
            "rows_per_step": 16 if needs.rollouts else 8,
            "learning_rate": 3e-3,
            "save_every": 0,
            "layout": self.layout,
            "head": self.head,
            **({} if bf16 is None else {"bf16": bf16}),
            **self.training,
        }
        if cpu:
            training["extra"] = {**training.get("extra", {}), "use_cpu": True}
        rollout = {"questions_per_step": 4, "n": 4, "max_tokens": LONGEST, **self.rollout}
        sampled = {"rollout": rollout, "rewards": REWARDS}
        return {
            "model": {**model, **{key: value for key, value in self.model.items() if key != "from_scratch"}},
            "algorithm": {"name": self.algorithm, **_needed(self.algorithm)},
            "data": data,
            **(sampled if needs.rollouts else {}),
            "training": training,
            "seed": 0,
            "output_dir": str(folder),
            **self.top,
        }


def cases() -> Iterator[Case]:
    """All of them; none needs more than the package and torch."""
    for config in ALGORITHMS:
        for precision in PRECISIONS:
            yield Case(name_of(config), precision)
    for algorithm in ("sft", "grpo", "dpo"):
        for precision in PRECISIONS:
            yield from _laid_out(Case(algorithm, precision))
    for algorithm in ("sft", "grpo", "dpo"):
        for precision in PRECISIONS:
            yield Case(algorithm, precision, tells="LoRA", model=_ADAPTER)
            yield Case(algorithm, precision, tells="layers computed again", training={"gradient_checkpointing": True})
    for precision in PRECISIONS:
        yield Case("grpo", precision, tells="resumed", training={"max_steps": 4, "save_every": 2}, resumed=True)
        yield Case("grpo", precision, tells="evaluated", top={"eval": {"every": 1, "samples": 2}})
        yield Case("sft", precision, tells="Llama, heads not grouped", model=_LLAMA)
    yield Case("grpo", BF16, tells="micro-batches", training={"micro_batch_tokens": 48})
    yield Case("sft", BF16, tells="LoRA, layers computed again, resumed", model=_ADAPTER, resumed=True,
               training={"gradient_checkpointing": True, "max_steps": 4, "save_every": 2})  # fmt: skip


def compiled_cases() -> Iterator[Case]:
    """Those whose layers are compiled, for which there must be a GPU."""
    compiled: dict[str, Any] = {"compile": True}
    for algorithm in ("sft", "grpo", "dpo"):
        for precision in (BF16, BFLOAT16):
            yield Case(algorithm, precision, tells="layers compiled", training=compiled)
        yield Case(algorithm, BF16, tells="layers compiled, LoRA", model=_ADAPTER, training=compiled)
        again = {**compiled, "gradient_checkpointing": True}
        yield Case(algorithm, BF16, tells="layers compiled and computed again", training=again)
    yield Case("grpo", BF16, tells="layers compiled, micro-batches", training={**compiled, "micro_batch_tokens": 48})
    yield Case("sft", BF16, tells="layers compiled, Llama", model=_LLAMA, training=compiled)
    on = {**compiled, "max_steps": 4, "save_every": 2}
    yield Case("grpo", BF16, tells="layers compiled, resumed", training=on, resumed=True)


_ADAPTER = {"adapter": {"r": 4, "alpha": 8}}
_LLAMA = {"from_scratch": {"architecture": "llama", "num_key_value_heads": 2, "tie_word_embeddings": True}}


def _laid_out(case: Case) -> Iterator[Case]:
    for layout, head in (("packed", "two_pass"), ("padded", "one_pass"), ("padded", "whole")):
        yield replace(case, layout=layout, head=head)


def _needed(algorithm: str) -> dict[str, Any]:
    """Options that it has no default for, or whose default makes much of a rounding: by a steep blend, or where two losses
    are nearly the same, and one is taken from the other.
    """
    [config] = [one for one in ALGORITHMS if name_of(one) == algorithm]
    asked = {name: LONGEST for name, one in config.model_fields.items() if name == "max_tokens" and one.is_required()}
    others: dict[str, dict[str, Any]] = {
        "discopop": {"tau": 1.0},
        "forget_retain": {"forget_coef": 0.3},
        "sdft": {"teacher_template": "{prompt}{demonstration}"},  # the tokenizer knows no other characters
        "sdpo": {"teacher_template": "{prompt}{right}"},
    }
    return {**asked, **others.get(algorithm, {})}


def _teacher(folder: Path) -> Path:
    place = folder / "teacher"
    if not place.is_dir():
        sizes = FromScratch(hidden_size=96, num_attention_heads=1, num_hidden_layers=LAYERS, initializer_range=0.08)
        for one in load(ModelConfig.model_validate({"from_scratch": sizes, "tokenizer": TOKENIZER}), seed=1):
            one.save_pretrained(place)
    return place


def _crossed(folder: Path) -> Path:
    """Questions under two principles, with an answer for each."""
    path = folder / "crossed.jsonl"
    told = ({"prompts": [f"+{i}=", f"*{i}="], "completions": [f"{i}#", f"{i}*{i}#"]} for i in range(64))
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    return path


def _pairs(folder: Path, *, labelled: bool) -> Path:
    """A right and a wrong answer to each question, and another right one; one of them, with a label, where that is wanted."""
    path = folder / f"{'labelled' if labelled else 'pairs'}.jsonl"
    answers = [(f"{i}+{i}=", f"{2 * i}#", f"{3 * i + 1}#") for i in range(64)]
    rows = [
        {"prompt": asked, "chosen": right, "rejected": wrong, "reference": f"{asked}{right}"}
        for asked, right, wrong in answers
    ]
    if labelled:
        rows = [
            {"prompt": a, "completion": (wrong, right)[i % 2], "label": i % 2 == 1}
            for i, (a, right, wrong) in enumerate(answers)
        ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
