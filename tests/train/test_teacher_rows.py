"""Rows that a teacher behind a server cannot read whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from datasets import Dataset

from posttrain import PostTrainer
from posttrain.errors import DataError
from posttrain.model.load import make_tokenizer
from rollout.vllm.test_vllm_client import Fake


def teaches(fake: Fake, length: int) -> None:
    tokenizer = make_tokenizer("bytes")
    fake.get["/v1/models"] = (200, {"data": [{"id": "m", "max_model_len": length}]})
    fake.post["/detokenize"] = lambda body: (200, {"prompt": tokenizer.decode(body["tokens"])})


def test_rows_that_it_cannot_read_are_found_before_any_step(
    request: pytest.FixtureRequest, make_trainer: Callable[..., PostTrainer]
) -> None:
    """A question with room for 8 tokens of an answer: left out of a data set, and refused where it was prepared."""
    fake = Fake()
    request.addfinalizer(fake.close)
    teaches(fake, 24)
    rows = [{"prompt": "1+1=", "answer": "2"}, {"prompt": "1+1=" * 5, "answer": "2"}]

    def made(**more: Any) -> PostTrainer:
        return make_trainer("opd", options={"rollouts": 2}, trainer_options={"teachers": {"far": fake.url}, **more})

    data: Any = Dataset.from_list(rows)
    assert [one.columns["prompt"] for one in made(train_dataset=data).train_dataset] == ["1+1="]  # type: ignore[reportUnknownMemberType]
    made()
    teaches(fake, 16)
    with pytest.raises(DataError, match=r"the prompt has 23 tokens, over the limit of 7 \(the teacher's own length"):
        made(train_dataset=data.select([1]))
    teaches(fake, 13)
    with pytest.raises(DataError, match="question 10: the teacher would read 14 tokens, and knows 12: leave the row out"):
        made()
