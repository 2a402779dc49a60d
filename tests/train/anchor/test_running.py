"""BCO's shift: running means over the steps so far, which a run goes on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posttrain import PostTrainer
from posttrain.data.rows import Example, Row
from posttrain.train.anchor.running import RunningAnchor
from posttrain.train.collect.collection import Collection
from posttrain.train.collect.demonstrations import collect_demonstrations
from tiny import make_model, parameters

MakeTrainer = Callable[..., PostTrainer]


def labelled(*rows: tuple[float, list[float]]) -> tuple[Collection, Callable[[Collection], torch.Tensor]]:
    """Rows with a label and what each of their tokens has gained; NaN where a token carries no loss."""
    examples, gains = list[Example](), list[float]()
    for label, gained in rows:
        tokens, mask = np.arange(1, len(gained) + 1, dtype=np.int32), ~np.isnan(gained)
        one = Row(np.array([1], np.int32), tokens, mask, np.full(len(gained), label, np.float32))
        examples.append(Example((one,), ""))
        gains += gained
    return collect_demonstrations(examples, progress=0.0), lambda _: torch.tensor(gains)


def test_it_is_half_way_between_the_means_of_both_labels() -> None:
    anchor, nan = RunningAnchor(0.75), float("nan")
    of = labelled((1, [1.0, 2.0]), (-1, [5.0, nan]), (1, [4.0, 1.0]), (-1, [nan]))
    assert anchor.of(*of, follow=True).tolist() == [(0.25 * 4 + 0.25 * 5) / 2] * 4
    assert anchor.of(*labelled((1, [8.0])), follow=True).tolist() == [(0.75 * 1 + 0.25 * 8 + 1.25) / 2]


def test_rows_that_are_only_looked_at_do_not_move_it() -> None:
    anchor = RunningAnchor(0.5)
    before = anchor.of(*labelled((1, [4.0])), follow=True)
    state = anchor.state()
    assert torch.equal(anchor.of(*labelled((-1, [100.0])), follow=False), before) and before > 0
    assert anchor.state() == state


def run(make_trainer: MakeTrainer, output: str, **options: Any) -> PostTrainer:
    return make_trainer("bco", output=output, rows_per_step=8, max_steps=6, learning_rate=1.0, model=make_model(), **options)


def test_a_run_goes_on_with_the_means_that_it_had(make_trainer: MakeTrainer) -> None:
    whole = run(make_trainer, "whole", save_strategy="steps", save_steps=3)
    whole.train()
    other = run(make_trainer, "other")
    other.train(resume_from_checkpoint=str(Path(str(whole.args.output_dir)) / "checkpoint-3"))
    made = [one.run_state.anchor for one in (whole, other)]
    assert made[0] is not None and made[1] is not None
    assert made[0].state() == made[1].state() and all(abs(mean) > 1e-3 for mean in made[0].state().values())
    assert torch.equal(parameters(whole.model), parameters(other.model))


def test_the_step_does_not_depend_on_how_it_is_cut(make_trainer: MakeTrainer) -> None:
    runs = [run(make_trainer, f"cut-{rows}", micro_rows=rows) for rows in (8, 1)]
    for one in runs:
        one.train()
    states = [one.run_state.anchor.state() for one in runs if one.run_state.anchor is not None]
    assert states[0] == pytest.approx(states[1], rel=1e-9)
    torch.testing.assert_close(*(parameters(one.model) for one in runs), rtol=1e-9, atol=1e-12)
