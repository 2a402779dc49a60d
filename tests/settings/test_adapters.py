"""The adapter of a recipe: peft's own names, and a sentence where it cannot be."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import peft.tuners as tuners
import pytest
from peft import PeftConfig
from pydantic import ValidationError

from adapters import CASES, adapter
from posttrain.recipe.fits.moves import check_moves
from posttrain.recipe.training import TrainingConfig
from posttrain.settings.adapters.fields import fields_of
from posttrain.settings.adapters.kinds import BY_NAME, KINDS, REFUSED, REFUSED_OPTIONS
from posttrain.settings.distributed import DistributedConfig
from posttrain.settings.model import Adapter, ModelConfig

WRONG: dict[str, dict[str, Any]] = {
    "did you mean lora or glora": {"kind": "lorra"},
    "virtual tokens": {"kind": "prefix_tuning"},
    "ia3 has none": {"kind": "ia3", "r": 4},
    "did you mean use_dora|no field of peft's OFTConfig": {"kind": "oft", "options": {"oft_blok_size": 4}},
    "did you mean rank_pattern": {"options": {"rank_patern": {}}},
    "is kind: dora": {"options": {"use_dora": True}},
    "is model.adapter.r": {"options": {"r": 3}},
    "posttrain sets it": {"options": {"task_type": "CAUSAL_LM"}},
    "corda is not offered": {"init": "corda"},
    "did you mean pissa": {"init": "pizza"},
    "would leave changed": {"options": {"bias": "all"}},
    "leave r out": {"continue": "runs/a/final/adapter", "r": 4},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_what_cannot_be_is_refused_with_the_reason(sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        Adapter.model_validate(WRONG[sentence])


def test_the_fields_are_those_of_the_installed_peft() -> None:
    """Each of its kinds is offered, or has a reason."""
    for kind in KINDS:
        config = getattr(getattr(tuners, kind.module), kind.config)
        assert fields_of(kind) == config.__dataclass_fields__.keys() - PeftConfig.__dataclass_fields__.keys()
        assert kind.fixed.keys() | kind.preset.keys() | kind.ranked.keys() <= fields_of(kind)
    known = {str(name).rpartition(".")[2].lower() for name in peft_kinds()}
    assert known == {kind.module for kind in KINDS} | REFUSED.keys()
    assert REFUSED_OPTIONS.keys() <= set().union(*map(fields_of, KINDS))


def peft_kinds() -> list[Any]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return [*PEFT_TYPE_TO_CONFIG_MAPPING]


def test_todays_form_is_lora_and_what_is_resolved_is_read_again() -> None:
    plain = Adapter(r=4, alpha=8)
    assert (plain.kind, plain.dropout, plain.target_modules, Adapter().r) == ("lora", 0.0, "all-linear", 16)
    assert plain == Adapter.model_validate({"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"})
    assert plain.for_peft() == {
        "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear", "task_type": "CAUSAL_LM",
    }  # fmt: skip
    for case in CASES:
        assert Adapter.model_validate(adapter(case).model_dump(mode="json")) == adapter(case)
    further = Adapter.model_validate({"continue": "runs/a/final/adapter"})
    assert Adapter.model_validate(further.model_dump(mode="json")) == further and further.kind is None
    assert BY_NAME["oft"].ranked and Adapter(kind="oft", r=4).for_peft()["oft_block_size"] == 0


def test_ranks_that_share_a_model_take_plain_lora_alone() -> None:
    shared = DistributedConfig(mode="fsdp2")
    for case, fits in {"lora": True, "rslora": True, "dora": False, "pissa": False, "oft": False}.items():
        model = ModelConfig(name="a/model", adapter=adapter(case))
        with nullcontext() if fits else pytest.raises(ValueError, match="take mode ddp"):
            check_moves(model, TrainingConfig(max_steps=1, rows_per_step=1), shared)
