"""Every field of transformers' TrainingArguments has been looked at: passed on, said elsewhere, idle, or refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from posttrain.recipe.training import TrainingConfig
from posttrain.settings.trainer import arguments
from posttrain.settings.trainer.arguments import IDLE, KEYS, PASSED, REFUSED, training_argument_names

TABLES = (PASSED, KEYS, IDLE, REFUSED)


def test_every_field_of_the_installed_transformers_stands_in_one_table() -> None:
    unseen = training_argument_names() - {name for table in TABLES for name in table}
    assert not unseen, f"look at them, and write them into a table: {sorted(unseen)}"
    named = [name for table in TABLES for name in table]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", sorted(training_argument_names()))
def test_a_recipes_extra_takes_a_field_or_says_why_not(name: str) -> None:
    given = {"max_steps": 1, "extra": {name: None}}
    if name in PASSED:
        assert TrainingConfig.model_validate(given).extra == {name: None}
        return
    reason = KEYS.get(name) or IDLE.get(name) or REFUSED[name]
    with pytest.raises(ValidationError) as error:
        TrainingConfig.model_validate(given)
    assert f"{name} is " in str(error.value) and reason in str(error.value)


def test_a_field_that_nobody_has_looked_at_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    known = training_argument_names()
    monkeypatch.setattr(arguments, "training_argument_names", lambda: known | {"brought_later"})
    with pytest.raises(ValidationError, match="brought_later is not supported: posttrain does not know it yet"):
        TrainingConfig.model_validate({"max_steps": 1, "extra": {"brought_later": True}})


def test_options_of_a_schedule_that_is_not_taken_are_refused() -> None:
    given = {"max_steps": 1, "schedule": {"name": "rex"}, "extra": {"lr_scheduler_kwargs": {"num_cycles": 2}}}
    with pytest.raises(ValidationError, match="lr_scheduler_kwargs are of lr_scheduler_type"):
        TrainingConfig.model_validate(given)
