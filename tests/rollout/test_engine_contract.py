"""The engine contract over the scripted engine and over transformers."""

from __future__ import annotations

import pytest

from posttrain import HFEngine
from rollout.engine_contract import EngineContract, Subject, of_model, of_table
from tiny import make_model


@pytest.fixture(scope="module", params=["scripted", "hf"])
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "scripted":
        return of_table()
    model, tokenizer = make_model(dtype="float32", max_position_embeddings=512)
    return of_model(HFEngine(model.eval(), tokenizer), model, tokenizer)


class TestEngines(EngineContract):
    pass
