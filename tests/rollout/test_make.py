"""The engine that a recipe names, and what it costs where that is not plain."""

from __future__ import annotations

import re

from posttrain.rollout.make import make_engine
from posttrain.settings.rollout import SamplingConfig
from posttrain.telling import hearing
from tiny import make_model


def test_sampling_with_a_model_that_ranks_share_tells_what_it_gathers() -> None:
    model, tokenizer = make_model(dtype="float32")
    size = 4 * sum(p.numel() for p in model.parameters())
    with hearing() as heard:
        make_engine(SamplingConfig(max_tokens=1000), model, tokenizer, compute="float32", allow_remote=False)
        assert not heard
        make_engine(SamplingConfig(max_tokens=1000), model, tokenizer, compute="float32", allow_remote=False, lockstep=True)
    [told] = heard
    gigabytes, inside, between = map(float, re.findall(r"([0-9.e+-]+) (?:GB\.|s )", told.sentence))
    assert (gigabytes, inside, between) == tuple(float(f"{x:.3g}") for x in (size / 1e9, size / 3e8, size / 4e7))
