"""The few bits of a base in a recipe: what they are, what can be trained over them, and a sentence where it cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from posttrain.recipe.fits.moves import check_moves
from posttrain.recipe.training import TrainingConfig
from posttrain.settings.adapters.quantization import Quantization
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import ModelConfig

SCRATCH: dict[str, Any] = {"name": None, "from_scratch": {"hidden_size": 64, "num_attention_heads": 2}, "tokenizer": "bytes"}
WRONG: dict[str, dict[str, Any]] = {
    "set model.adapter": {"adapter": None},
    "kind oft is not proved": {"adapter": {"kind": "oft"}},
    "init: pissa reads the base": {"adapter": {"init": "pissa"}},
    "init: orthogonal reads the base": {"adapter": {"init": "orthogonal"}},
    "it is of a model that was trained before": SCRATCH,
    "has no use for weights of few bits": {"dtype": "float64"},
    "nf4 is not of 8 bits; there are int8": {"quantization": {"bits": 8, "type": "nf4"}},
    "int8 is not of 4 bits; there are nf4, fp4": {"quantization": {"bits": 4, "type": "int8"}},
    "leave double out": {"quantization": {"bits": 8, "double": True}},
    "Input should be 4 or 8": {"quantization": {"bits": 3}},
    "Input should be 'nf4', 'fp4' or 'int8'": {"quantization": {"type": "nf8"}},
    "of model.compute, as everywhere": {"quantization": {"compute": "bfloat16"}},
    "here it is model.compute": {"quantization": {"bnb_4bit_compute_dtype": "bfloat16"}},
    "did you mean type": {"quantization": {"typ": "nf4"}},
}


def model(**values: Any) -> ModelConfig:
    return ModelConfig.model_validate({"name": "a/model", "adapter": {}, "quantization": {}, **values})


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_is_refused_with_the_reason(sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        model(**WRONG[sentence])


def test_a_type_follows_from_the_bits_and_what_is_resolved_is_read_again() -> None:
    types = {bits: Quantization.model_validate({"bits": bits}).type for bits in (4, 8)}
    assert types == {4: "nf4", 8: "int8"}
    paper = model(quantization={"bits": 4, "type": "nf4", "double": True})
    assert ModelConfig.model_validate(paper.model_dump(mode="json", by_alias=True)) == paper
    assert paper.quantization is not None and paper.quantization.label == "nf4 with double quantization"
    assert model(adapter={"continue": "runs/a/final/adapter"}).quantization == Quantization()


@pytest.mark.parametrize("mode", ["fsdp2", "zero1", "zero3"])
def test_each_process_has_the_whole(mode: Any) -> None:
    training = TrainingConfig(max_steps=1, rows_per_step=1)
    with pytest.raises(ValueError, match="whole in each process: take mode ddp"):
        check_moves(model(), training, DistributedConfig(mode=mode))
    check_moves(model(), training, DistributedConfig(mode="ddp"))
