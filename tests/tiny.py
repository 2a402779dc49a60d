"""A tiny model and rows of unequal lengths, for tests of everything above the core."""

from __future__ import annotations

from typing import Any

import torch

from posttrain import Group, Judgement
from posttrain.data.chat import Encoder
from posttrain.data.config import DataConfig, PathSource
from posttrain.data.prepare import examples
from posttrain.data.rows import Example, Problem
from posttrain.data.sources import Record
from posttrain.model_config import Adapter, FromScratch, ModelConfig
from posttrain.models import eos_ids, load

TINY = FromScratch(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=1, initializer_range=0.3)


def make_model(*, adapter: Adapter | None = None, dtype: Any = "float64", **fields: Any) -> tuple[Any, Any]:
    config = ModelConfig(from_scratch=TINY.model_copy(update=fields), tokenizer="bytes", dtype=dtype, adapter=adapter)
    model, tokenizer = load(config, seed=0)
    return model.to(getattr(torch, dtype)), tokenizer  # peft makes its adapter in float32


def make_examples(model: Any, tokenizer: Any, *, preference: bool, rows: int = 24) -> list[Example]:
    def record(i: int) -> Record:
        columns = {"prompt": f"what is {i} + {i}?", "completion": f"{'it is ' * (i % 5)}{2 * i}"}
        return Record(f"row {i}", {**columns, "chosen": columns["completion"], "rejected": f"{i + 1}{'!' * (i % 3)}"})

    encoder = Encoder(tokenizer, DataConfig(train=PathSource(path="")), eos_ids(model, tokenizer))
    return examples(map(record, range(rows)), encoder, preference=preference)[0]


def make_problems(tokenizer: Any, *, rows: int = 24) -> list[Problem]:
    """Additions, as questions, all but every third with a demonstration."""
    return [
        Problem(
            tokenizer(f"{i}+{i}=").input_ids,
            {"prompt": f"{i}+{i}=", "answer": str(2 * i)},
            f"question {i}",
            None if i % 3 == 0 else (*tokenizer(f"{2 * i}{'.' * (i % 4)}").input_ids, tokenizer.eos_token_id),
        )
        for i in range(rows)
    ]


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
