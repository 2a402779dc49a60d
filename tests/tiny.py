"""A tiny model and rows of unequal lengths, for tests of everything above the core."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import rms_norm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from posttrain import Group, Judgement
from posttrain.data.encoding.teacher import Asked
from posttrain.data.reader import Reader
from posttrain.data.rows import Example, Problem
from posttrain.data.sources import Record
from posttrain.data.weights import Worth
from posttrain.model.load import load
from posttrain.model.pretrained.tokenizer import eos_ids
from posttrain.settings.data import Encoding
from posttrain.settings.model import Adapter, FromScratch, ModelConfig

TINY = FromScratch(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1, initializer_range=0.3)


def make_model(*, adapter: Adapter | None = None, dtype: Any = "float64", **fields: Any) -> tuple[Any, Any]:
    config = ModelConfig(from_scratch=TINY.model_copy(update=fields), tokenizer="bytes", dtype=dtype, adapter=adapter)
    model, tokenizer = load(config, seed=0)
    return with_exact_norms(model).to(getattr(torch, dtype)), tokenizer  # peft makes its adapter in float32


def make_teacher(*, dtype: Any = "float64") -> Any:
    """Another model over the same vocabulary, and wider."""
    return make_model(dtype=dtype, hidden_size=64)[0]


def with_exact_norms(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, Qwen2RMSNorm):
            module.__class__ = Norm
    return model


class Norm(Qwen2RMSNorm):
    """In the dtype of its input, where transformers' goes by way of float32: gradients that are exact to 1e-12."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)


def make_examples(
    model: Any,
    tokenizer: Any,
    *,
    sides: tuple[str, ...] = (),
    crossed: int = 0,
    worth: Worth = "none",
    template: str = "",
    rows: int = 24,
) -> list[Example]:
    """`template` is what a teacher is asked, of these columns."""

    def record(i: int) -> Record:
        columns = {"prompt": f"what is {i} + {i}?", "completion": f"{'it is ' * (i % 5)}{2 * i}"}
        worths = {"weight": i % 4 / 2, "reward": (i % 3 - 1) / 2, "advantage": (i % 5 - 1) / 4, "forget": i % 3 == 0}
        worths |= {"label": i % 3 > 0} if worth == "label" else {}  # which other algorithms refuse
        pair = {"chosen": columns["completion"], "rejected": f"{i + 1}{'!' * (i % 3)}", "reference": f"{i} + {i} = {2 * i}"}
        told = {"prompts": [f"{'briefly: ' * k}{i} + {i}?" for k in range(crossed)]}
        told["completions"] = [f"{'it is ' * (crossed - k)}{2 * i}" for k in range(crossed)]
        return Record(f"row {i}", {**columns, **worths, **pair, **told, "demonstration": columns["completion"]})

    reader = Reader(Encoding(), tokenizer, eos_ids(model, tokenizer))
    asked = Asked(template, shows_right="{right}" in template) if template else None
    return reader.examples(map(record, range(rows)), sides=sides, crossed=crossed, worth=worth, teacher=asked)[0]


def make_problems(tokenizer: Any, *, template: str = "", rows: int = 24) -> list[Problem]:
    """Additions, as questions, all but every third with a demonstration; `template` is what a teacher is asked."""

    def problem(i: int) -> Problem:
        columns = {"prompt": f"{i}+{i}=", "answer": str(2 * i), "value": i % 4 / 8}
        shown = f"{2 * i}{'.' * (i % 4)}"
        return Problem(
            tokenizer(columns["prompt"]).input_ids,
            columns,
            f"question {i}",
            None if i % 3 == 0 else (*tokenizer(shown).input_ids, tokenizer.eos_token_id),
            tokenizer(template.format(**columns, demonstration=shown, right="")).input_ids if template else None,
        )

    return [*map(problem, range(rows))]


class Thirds:
    """A reward: the share of a completion's tokens that are multiples of three; right are those whose first one is."""

    name = "thirds"

    def judge(self, group: Group) -> list[Judgement]:
        shares = [sum(token % 3 == 0 for token in tokens) / len(tokens) for tokens in group.tokens]
        return [Judgement(share, tokens[0] % 3 == 0) for share, tokens in zip(shares, group.tokens, strict=True)]

    def close(self) -> None:
        pass


def parameters(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])
