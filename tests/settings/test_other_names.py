"""What other tools call a key leads to a key that there is."""

from __future__ import annotations

from typing import Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from posttrain.algorithms import KIND
from posttrain.recipe.recipe import Recipe
from posttrain.settings.data import PathSource
from posttrain.settings.other_names import ALGORITHMS, KEYS, LACKING, OURS, key_hint, nearest
from recipes import Command, recipe


def models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in models(part)] if get_origin(annotation) is not None else []


def is_there(key: str) -> bool:
    first, *rest = key.split(".")
    kinds: list[type[BaseModel]] = [Recipe]
    if first == "algorithm":
        return any(rest[0] in config.model_fields for config in KIND.members.values())
    for part in key.split("."):
        if part == "optim":
            return True  # of training.extra
        found = [kind.model_fields[part].annotation for kind in kinds if part in kind.model_fields]
        if not found:
            return False
        kinds = models(Union[tuple(found)]) or ([PathSource] if part == "train" else [])  # noqa: UP007
    return True


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_one_of_ours(key: str) -> None:
    assert is_there(key)


def test_no_name_is_in_the_table_twice_or_one_of_ours_at_its_place() -> None:
    names = [name for these in KEYS.values() for name in these.split()]
    assert len(names) == len(set(names)) == len(OURS) and not set(names) & set(LACKING)
    assert not set(ALGORITHMS) & set(KIND.members)
    assert not is_there("training.lr") and is_there("training.learning_rate")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("learning-rate", "did you mean learning_rate?"),
        ("LR", "here it is training.learning_rate"),
        ("qlora", "here it is model.quantization"),
        ("lora_bias", "an adapter trains no biases"),
        ("zzz", "there are learning_rate, rows"),
    ],
)
def test_hints(given: str, says: str) -> None:
    assert key_hint(given, ["learning_rate", "rows"]) == says


def test_up_to_three_that_are_nearly_as_good_are_named() -> None:
    assert nearest("abcd", ["abce", "abcf", "abcg", "abch", "xyz"]) == "abce, abcf or abcg"
    assert nearest("ABCD", ["abcd", "abce"]) == "abcd" and nearest("q", ["abcd"]) == ""


@pytest.mark.parametrize("command", ["run", "validate"])
@pytest.mark.parametrize("argument", ["training.max_steps=5", "--training.max_steps=5", "seed=3", "++training.max_steps=5"])
def test_an_override_without_set(posttrain: Command, command: str, argument: str) -> None:
    code, _, err = posttrain(command, recipe(), argument)
    assert code == 2 and f"an override is given by --set: --set {argument.lstrip('-+')}" in err
    assert posttrain("validate", recipe(), "--set", "training.max_steps=5")[0] == 0
