"""Which turns of a conversation are learnt: those of a role, and those whose calls did not fail."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data.test_encoder import config, shown, tokenizer
from data.transforms.test_transforms import made
from posttrain.data.encoding.encoder import Encoder
from posttrain.data.sources import Record
from posttrain.errors import DataError
from posttrain.telling import hearing

ROLES = ("planner", "caller", "summariser")


def talk(*turns: tuple[str, str, str]) -> dict[str, Any]:
    """Role, name and content of each turn, after a question."""
    said = [{"role": role, "content": content} | ({"name": name} if name else {}) for role, name, content in turns]
    return {"messages": [{"role": "user", "content": "q"}, *said]}


def conversation(draw: Random) -> dict[str, Any]:
    """Of several turns, of roles in any order, with what others say between them."""
    turns = list[tuple[str, str, str]]()
    for _ in range(draw.randint(1, 6)):
        turns.append(("assistant", draw.choice(ROLES), draw.choice("abc") * draw.randint(1, 3)))
        turns += [("user", "", draw.choice("de"))] * draw.randint(0, 1)
    return talk(*turns)


def masks(columns: dict[str, Any], given: Sequence[dict[str, Any]], train: Sequence[Record]) -> NDArray[np.bool_]:
    """Which tokens of the whole conversation are learnt, without its end, in which nothing is."""
    [record] = made(given, [Record("row", columns)], train=train)
    if record.left_out is not None:
        return np.zeros(0, np.bool_)
    row, _ = Encoder(tokenizer(), config(), (1,)).demonstration(record.columns)
    return np.concatenate([np.zeros(len(row.prompt), np.bool_), row.mask])


def padded(mask: NDArray[np.bool_], length: int) -> NDArray[np.bool_]:
    return np.pad(mask, (0, length - len(mask)))


@pytest.mark.parametrize("seed", range(8))
def test_masks_of_roles_are_disjoint_and_their_union_is_the_mask_without_roles(seed: int) -> None:
    columns = conversation(Random(seed))
    all_of = [Record("other", talk(*(("assistant", role, "a") for role in ROLES)))]
    whole = masks(columns, [], all_of)
    by_role = [padded(masks(columns, [{"name": "roles", "roles": [role]}], all_of), len(whole)) for role in ROLES]
    assert not any((one & other).any() for one, other in combinations(by_role, 2))
    assert (np.any(by_role, axis=0) == whole).all() and whole.any()
    together = masks(columns, [{"name": "roles", "roles": [*ROLES]}], all_of)
    assert (together == whole).all()


def test_where_there_is_one_role_its_rows_are_what_they_were() -> None:
    columns = talk(("assistant", "planner", "ab"), ("user", "", "c"), ("assistant", "planner", "d"))
    [record] = made([{"name": "roles", "roles": ["planner"]}], [Record("row", columns)])
    assert record.columns == columns


def test_turns_that_are_not_learnt_stay_so_and_a_row_without_the_role_is_left_out() -> None:
    columns = talk(("assistant", "planner", "a"), ("assistant", "planner", "b"))
    columns["messages"][1]["weight"] = 0
    given = [{"name": "roles", "roles": ["planner"]}]
    one, other = made(given, [Record("1", columns), Record("2", talk(("assistant", "caller", "c")))])
    assert one.columns == columns
    assert other.left_out is not None and other.left_out[1].endswith("it has no turn of planner")


def test_a_role_that_no_row_has_is_refused_with_those_that_there_are() -> None:
    rows = [Record("1", talk(("assistant", "caller", "c"), ("assistant", "", "d")))]
    with pytest.raises(DataError, match=r"has the name planer; their names, and how many turns: caller: 1, \(no name\): 1"):
        made([{"name": "roles", "roles": ["caller", "planer"]}], rows)


ERRORS: list[tuple[dict[str, Any], bool]] = [
    ({"content": "Error: no such city"}, True),
    ({"content": " ValueError: bad"}, True),
    ({"content": "Traceback (most recent call last):"}, True),
    ({"content": '{"error": "no such city", "response": ""}'}, True),
    ({"content": '{"error": "", "response": "12"}'}, False),
    ({"content": '{"error": null}'}, False),
    ({"content": "Errors were 3 percent"}, False),
    ({"content": "No error"}, False),
    ({"content": "12", "error": True}, True),
    ({"content": "12", "isError": True}, True),
    ({"content": "12", "is_error": False}, False),
    ({"content": "12", "error": ""}, False),
]


@pytest.mark.parametrize(("said", "failed"), ERRORS)
def test_what_a_tool_answers_says_whether_the_call_failed(said: dict[str, Any], failed: bool) -> None:
    columns = talk(("assistant", "", "call"), ("tool", "f", ""), ("assistant", "", "d"))
    columns["messages"][2] |= said
    [record] = made([{"name": "mask_failed_calls"}], [Record("row", columns)])
    messages = record.columns["messages"]
    assert [message.get("train", True) for message in messages] == [True, not failed, True, True]
    assert not {"error", "is_error", "isError"} & {key for message in messages for key in message}


def test_the_turn_before_an_error_carries_no_loss_and_what_follows_does() -> None:
    columns = talk(("assistant", "", "ab"), ("tool", "", "c"), ("tool", "", "ed"), ("assistant", "", "d"), ("tool", "", "c"))
    with hearing() as told:
        [record] = made([{"name": "mask_failed_calls", "pattern": "e"}], [Record("row", columns)])
    assert [one.sentence for one in told] == [
        "data.transforms (mask_failed_calls): of 2 turns of the assistant 1 have a call that failed, and carry no loss."
    ]
    row, _ = Encoder(tokenizer(), config(), (1,)).demonstration(record.columns)
    assert shown(row) == ("Uq$Aab$Tc$Ted$A", "d$", "11")


def test_without_a_pattern_a_messages_key_alone_counts_and_that_nothing_failed_is_told() -> None:
    rows = [Record("row", talk(("assistant", "", "a"), ("tool", "", "Error: b"), ("assistant", "", "c")))]
    with hearing() as told:
        [record] = made([{"name": "mask_failed_calls", "pattern": None}], rows)
    assert record.columns == rows[0].columns and "nothing is masked" in told[0].sentence


def test_rows_that_are_no_conversations_stay_as_they_are() -> None:
    rows = [Record("row", {"prompt": "a", "completion": "b"})]
    assert made([{"name": "mask_failed_calls"}], rows) == rows


def test_a_row_whose_turns_all_failed_is_left_out() -> None:
    [record] = made([{"name": "mask_failed_calls"}], [Record("row", talk(("assistant", "", "a"), ("tool", "", "Error")))])
    assert record.left_out is not None and "all of its turns" in record.left_out[1]
