"""A server that is to teach has one model, by however many names."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.errors import SetupError
from posttrain.model.load import make_tokenizer
from posttrain.rollout.vllm.teacher import ServedTeacher
from rollout.vllm.test_vllm_client import Fake


def test_a_server_of_several_models_is_refused(request: pytest.FixtureRequest) -> None:
    fake, tokenizer = Fake(), make_tokenizer("bytes")
    request.addfinalizer(fake.close)

    def serves(**roots: str) -> None:
        models: list[Any] = [{"id": name, "root": root, "max_model_len": 64} for name, root in roots.items()]
        fake.get["/v1/models"] = (200, {"data": models})

    fake.post["/detokenize"] = lambda body: (200, {"prompt": tokenizer.decode(body["tokens"])})
    serves(a="folder", b="folder")
    assert ServedTeacher("t", fake.url, tokenizer).context == 63
    serves(a="folder", b="adapter")
    with pytest.raises(
        SetupError, match=r"model.teachers.t: The vLLM server at .* has several models, a, b, and nothing says"
    ):
        ServedTeacher("t", fake.url, tokenizer)
