"""Units whose rows have several prompts, in any layout and any cut of the step; and what is handed over otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from posttrain import PostTrainer, build_algorithm
from posttrain.data.rows import Example
from posttrain.errors import DataError
from posttrain.model.layout.make import make_layout
from tiny import make_examples, make_model, parameters
from train import naive

MakeTrainer = Callable[..., PostTrainer]
CUTS: list[dict[str, Any]] = [
    {},
    {"micro_rows": 1},
    {"micro_tokens": 150},
    {"micro_tokens": 20},  # less than a unit has
    {"trainer_options": {"layout": "packed"}, "micro_tokens": 150},
    {"trainer_options": {"layout": "padded", "head": "two_pass"}, "micro_rows": 2},
]


def test_a_step_has_the_gradient_of_the_models_own_full_logits(make_trainer: MakeTrainer) -> None:
    expected = None
    for i, cut in enumerate(CUTS):
        trainer = make_trainer("sami", output=str(i), max_steps=1, learning_rate=1.0, **cut)
        model: Any = trainer.model
        if expected is None:
            collection = trainer.run_state.collector.collect(model, 0, 0.0)
            start = naive.log_softmax(model, collection).detach()
            policies: Any = {"old": naive.of_tokens(start, collection), "ref": start, "at": 1.0}
            expected = naive.gradient(build_algorithm("sami"), model, collection, range(24), **policies)
            assert collection.flat.unit == 4 and collection.batch.chosen is None
            assert expected.abs().max() > 1e-3
        before = parameters(model)
        trainer.train()
        assert (before - parameters(model) - expected).abs().max() < 1e-10 * expected.abs().max(), cut


@pytest.mark.parametrize("bound", [1, 40, 100, None])
@pytest.mark.parametrize("layout", ["padded", "packed", "shared"])
def test_no_unit_is_cut_and_its_prompts_stand_once_where_they_are_shared(layout: Any, bound: int | None) -> None:
    rows = [one.rows for one in make_examples(*make_model(), crossed=3, rows=5)]
    rows.append(rows[0])  # the same question twice: its prompts are shared too
    made = make_layout(layout, pad_id=0)
    dealt = made.deal(rows, ranks=2, rows=None, tokens=bound)
    assert sorted(unit for rank in dealt for micro in rank for unit in micro) == list(range(6))
    assert all(len(micro) == 1 or made.tokens([row for unit in micro for row in rows[unit]]) <= (bound or 1e9)
               for rank in dealt for micro in rank)  # fmt: skip
    if layout == "shared":
        prompts, answers = ({tuple(ids) for ids in of} for of in (
            (row.prompt for row in rows[0]), (row.completion for row in rows[0])))  # fmt: skip
        assert len(prompts) == len(answers) == 3
        assert made.tokens(rows[0]) == sum(map(len, prompts)) + 3 * sum(map(len, answers))


def test_prepared_examples_of_other_units_are_refused(make_trainer: MakeTrainer) -> None:
    pairs: list[Example] = make_examples(*make_model(), sides=("chosen", "rejected"))
    with pytest.raises(DataError, match="prepared examples must have 4 rows each, and some have 2"):
        make_trainer("sami", trainer_options={"train_dataset": pairs})


def test_a_data_set_of_lists_is_taken_as_it_is(make_trainer: MakeTrainer) -> None:
    told = [{"prompts": [f"{i}?", f"short: {i}?"], "completions": [f"it is {i}", f"{i}"]} for i in range(8)]
    trainer = make_trainer("sami", max_steps=2, trainer_options={"train_dataset": told})
    trainer.train()
    with pytest.raises(DataError, match=r"the columns prompts \+ completions are needed"):
        make_trainer("sami", trainer_options={"train_dataset": [{"prompt": "a", "completion": "b"}]})
