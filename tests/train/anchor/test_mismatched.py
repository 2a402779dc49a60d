"""KTO's anchor: how likely the policy has made completions of other prompts, over the whole step, however it is cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import PostTrainer
from posttrain.data.rows import Example, Row
from posttrain.telling import hearing
from posttrain.train.anchor.mismatched import mismatched
from posttrain.train.collect.demonstrations import collect_demonstrations
from tiny import make_model


def row(prompt: list[int], completion: list[int]) -> Row:
    return Row(np.array(prompt, np.int32), np.array(completion, np.int32), np.array([token != 9 for token in completion]))


def test_each_prompt_has_the_completion_of_the_row_before() -> None:
    rows = [row([1, 2, 3, 4], [5, 6, 7, 9]), row([1], [8]), row([2, 2], [3, 9, 3])]
    made = mismatched(collect_demonstrations([Example((one,), "") for one in rows], progress=0.3))
    assert [one.prompt.tolist() for one in made.rows] == [[1, 2, 3, 4], [1], [2, 2]]
    assert [one.completion.tolist() for one in made.rows] == [[3, 9, 3], [5, 6, 7, 9], [8]]
    assert [one.mask.tolist() for one in made.rows] == [[True, False, True], [True, True, True, False], [True]]
    assert made.flat.progress == 0.3 and made.flat.get("weight") is None


def test_no_row_becomes_longer_than_the_longest_that_there_was() -> None:
    rows = [row([1], [5, 6, 7, 8, 4]), row([1, 2, 3, 4, 5], [8])]
    made = mismatched(collect_demonstrations([Example((one,), "") for one in rows], progress=0.0))
    assert [one.completion.tolist() for one in made.rows] == [[8], [5]]


def test_a_row_alone_has_nothing_to_compare_with_and_that_is_told() -> None:
    with hearing() as heard:
        made = mismatched(collect_demonstrations([Example((row([1], [2, 3]),), "")], progress=0.0))
    assert not made.rows[0].mask.any()
    assert ["its anchor is 0" in one.sentence for one in heard] == [True]


def anchors_and_weights(make_trainer: Callable[..., PostTrainer], **options: Any) -> tuple[list[float], torch.Tensor]:
    """The first of two large steps makes completions likelier, so that the anchor of the second is above 0."""
    policy = make_model()
    of_labels = {"desirable": 4.0, "undesirable": 0.1}
    trainer = make_trainer("kto", options=of_labels, model=policy, rows_per_step=8, max_steps=2, learning_rate=2.0, **options)
    seen: list[float] = []
    step = trainer._learner.step

    def watched(collection: Any, *arguments: Any) -> Any:
        seen.extend(set(collection.flat.fields["anchor"].tolist()))
        return step(collection, *arguments)

    trainer._learner.step = watched  # type: ignore[method-assign]
    trainer.train()
    return seen, torch.cat([p.detach().flatten() for p in policy[0].parameters()])


def test_the_anchor_and_the_step_do_not_depend_on_how_it_is_cut(make_trainer: Callable[..., PostTrainer]) -> None:
    whole, expected = anchors_and_weights(make_trainer, micro_rows=8)
    parted, actual = anchors_and_weights(make_trainer, micro_rows=1, output="parted")
    assert whole[0] == 0 and whole[1] > 0.01  # one number for all rows of a step; policy and start model agree at first
    assert parted == pytest.approx(whole, rel=1e-9)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


def test_the_anchor_is_the_mean_log_ratio_of_the_mismatched_rows(make_trainer: Callable[..., PostTrainer]) -> None:
    model, tokenizer = make_model()
    trainer = make_trainer("kto", model=(model, tokenizer), rows_per_step=4)
    collection = trainer.run_state.collector.collect(model, 0, 0.0)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    means: list[float] = []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
                parameter.copy_(start[name] + 0.05 * noise)
        gains = []
        for one in mismatched(collection).rows:
            ids = torch.from_numpy(np.concatenate([one.prompt, one.completion])).long()[None]
            both = []
            for weights in (None, start):
                with torch.no_grad():
                    logits = model(ids).logits if weights is None else torch.func.functional_call(model, weights, ids).logits
                logp = logits.log_softmax(-1)[0, :-1].gather(-1, ids[0, 1:, None])[:, 0]
                both.append(logp[len(one.prompt) - 1 :][torch.from_numpy(one.mask)].sum())
            gains.append(both[0] - both[1])
        means.append(float(torch.stack(gains).mean()))
        expected = max(0.0, means[-1])
        opened = trainer._learner.open(model, collection)
        anchor = opened.flat.fields["anchor"]
        assert len(anchor) == 4
        assert anchor.tolist() == pytest.approx([expected] * 4, rel=1e-9)
    assert min(means) < 0 < max(means)
