"""What demonstrations are worth reaches the parameters: by rows and tokens, in any layout and any cut of the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from posttrain import Batch, PostTrainer, build_algorithm
from posttrain.data.rows import Example
from posttrain.errors import DataError
from posttrain.train.collect.arrays import from_arrays, to_arrays
from posttrain.train.collect.demonstrations import collect_demonstrations
from posttrain.train.given.rows import as_examples
from tiny import make_examples, make_model, parameters
from train import naive

MakeTrainer = Callable[..., PostTrainer]


def weighed(rows: list[Example], numbers: Callable[[int], float]) -> list[Example]:
    """The same with a number for each token, by its place."""
    return [
        dataclasses.replace(
            one,
            rows=tuple(
                dataclasses.replace(row, weight=np.array([numbers(i) for i in range(len(row.completion))], np.float32))
                for row in one.rows
            ),
        )
        for one in rows
    ]


@pytest.mark.parametrize("weights", ["per_token", "per_weight"])
def test_token_weights_are_in_the_gradient_in_any_layout_and_cut(weights: str, make_trainer: MakeTrainer) -> None:
    options, (model, tokenizer) = {"weights": weights}, make_model()
    rows = weighed(make_examples(model, tokenizer), lambda place: (0.0, 0.0078125, 0.00390625)[place % 3])
    algorithm, collection = build_algorithm("sft", **options), collect_demonstrations(rows[:6], progress=0.0)
    start = naive.log_softmax(model, collection).detach()
    policies: Any = {"old": naive.of_tokens(start, collection), "ref": start, "at": 1.0}
    expected = naive.gradient(algorithm, model, collection, range(6), **policies)
    plain = {"trainer_options": {"layout": "padded", "head": "two_pass"}}
    for i, cut in enumerate(({}, {"micro_rows": 1}, {"micro_tokens": 70}, plain)):
        trainer = make_trainer("sft", options=options, output=str(i), max_steps=1, learning_rate=1.0, **cut)
        trainer.run_state.collector = Once(rows[:6])
        before = parameters(trainer.model)
        trainer.train()
        close = (before - parameters(trainer.model) - expected).abs().max() / expected.abs().max()
        assert close < 1e-9, cut


class Once:
    """The same rows in every step."""

    def __init__(self, rows: list[Example]) -> None:
        self._rows = rows

    def collect(self, model: Any, step: int, progress: float) -> Any:
        return collect_demonstrations(self._rows, progress=progress)

    def state(self) -> dict[str, Any]:
        return {}

    def ahead(self, step: int) -> dict[int, Any]:
        return {}

    def kept(self) -> None:
        return None

    def restore(self, state: Any, ahead: Any = None, kept: Any = None) -> None:
        pass


def test_a_collection_of_weighed_rows_is_the_same_from_a_file() -> None:
    model, tokenizer = make_model()
    collection = collect_demonstrations(weighed(make_examples(model, tokenizer)[:4], float), progress=0.0)
    back = from_arrays(to_arrays(collection))
    assert collection.batch.weight is not None and back.batch.weight is not None
    assert torch.equal(back.batch.weight, collection.batch.weight) and collection.batch.weight.max() > 2


def test_a_row_of_weight_0_is_not_read_and_stays_in_n(make_trainer: MakeTrainer) -> None:
    model, tokenizer = make_model()
    rows = make_examples(model, tokenizer)[:2]
    shown = [*weighed(rows[:1], lambda place: 1.0), *weighed(rows[1:], lambda place: 0.0)]
    trainer = make_trainer("sft", options={"weights": "per_token"}, rows_per_step=2, max_steps=1)
    trainer.run_state.collector = Once(shown)
    [step], _ = trainer.get_batch_samples(iter([0]), 1, torch.device("cpu"))
    assert step.counts["sft"] == sum(len(one.rows[0].completion) for one in rows) and step.skipped == 0.5


def test_prepared_rows_without_weights_are_refused() -> None:
    model, tokenizer = make_model()
    rows = make_examples(model, tokenizer)
    with pytest.raises(DataError, match=r"prepared rows must have a weight: Reader.examples\(…, worth='reward'\)"):
        as_examples(rows, model, tokenizer, worth="reward")


def test_rewards_weigh_otherwise_than_what_they_are_above_their_prompts() -> None:
    """Two prompts, an easy and a hard one, with a good and a bad answer each: rwr learns most from the easy one's, awr from
    good answers, whatever was asked, and a_lol from these alone."""
    rewards, means = torch.tensor([1.0, 0.8, 0.4, 0.0]).double(), torch.tensor([0.9, 0.9, 0.2, 0.2]).double()

    def made(name: str, worth: Tensor, **options: Any) -> Batch:
        batch = Batch(loss_mask=torch.ones(4, 1, dtype=torch.bool), weight=worth[:, None])
        return build_algorithm(name, **options).prepare(batch)

    assert row_numbers(made("rwr", rewards, beta=0.5)) == pytest.approx([7.389056, 4.953032, 2.225541, 1.0], rel=1e-5)
    assert row_numbers(made("awr", rewards - means, beta=0.5)) == pytest.approx(
        [1.221403, 0.818731, 1.491825, 0.67032], rel=1e-5
    )
    kept = made("a_lol", rewards - means)
    assert kept.loss_mask[:, 0].tolist() == [True, False, True, False]
    assert row_numbers(kept)[::2] == pytest.approx([0.1, 0.2], rel=1e-5)


def row_numbers(batch: Batch) -> list[float]:
    assert batch.advantage is not None
    return batch.advantage[:, 0].tolist()
