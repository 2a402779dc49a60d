"""Built-in environments: what an oracle and chance are paid in each, their splits, and what odd texts come to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from pydantic import ValidationError

from environments.played import SPLITS, Policy, chance, last, paid, play, right, row
from posttrain.environments.base import Call, Start, Step, Turn
from posttrain.environments.kinds import KIND
from posttrain.environments.kinds.calculator import CalculatorConfig
from posttrain.environments.kinds.grid import GridConfig, Map
from posttrain.environments.kinds.guess import GuessConfig
from posttrain.environments.kinds.sql import SqlConfig, task_of
from posttrain.environments.kinds.twenty import TwentyConfig
from posttrain.environments.kinds.user import SLOTS, UserConfig
from posttrain.environments.options import EnvironmentConfig

Played = Sequence[tuple[Turn, Step]]

CONFIGS: list[EnvironmentConfig] = [
    GuessConfig(max_turns=4),
    TwentyConfig(max_turns=8),
    CalculatorConfig(max_turns=6, format="hermes"),
    CalculatorConfig(max_turns=6, words=False, question="{question}"),
    GridConfig(max_turns=14),
    SqlConfig(max_turns=5, format="hermes"),
    UserConfig(max_turns=10),
]


def halve(start: Start, played: Played) -> Turn:
    low, high = 0, 9
    for turn, step in played:
        low, high = (low, int(turn.text) - 1) if step.messages[0]["content"] == "<" else (int(turn.text) + 1, high)
    return Turn(str((low + high) // 2))


@cache
def worst(things: tuple[str, ...]) -> tuple[int, int]:
    """The most questions that tell these things apart, and which is asked first."""
    if len(things) == 1:
        return 0, 0
    found = (99, 0)
    for place in range(len(things[0])):
        parts = [tuple(thing for thing in things if thing[place] == value) for value in "01"]
        if all(parts):
            found = min(found, (1 + max(worst(part)[0] for part in parts), place))
    return found


def asks_for_halves(start: Start, played: Played) -> Turn:
    lines = [line.split() for line in start.messages[0]["content"].split("\nEach")[0].splitlines()]
    for turn, step in played:
        value = str(int(step.messages[0]["content"] == "yes"))
        lines = [line for line in lines if line[1][int(turn.text[4]) - 1] == value]
    if len(lines) == 1:
        return Turn(f"is {lines[0][0]}?")
    return Turn(f"has {worst(tuple(line[1] for line in lines))[1] + 1}?")


def calculates(start: Start, played: Played) -> Turn:
    """Asks the tool for each step of a chain, and writes down what it said last."""
    plain = not start.tools
    asked = start.messages[0]["content"].split("\n")[0]
    if plain:
        first, steps = re.findall(r"^\d+", asked)[0], re.findall(r"([+*-])(\d+)", asked)
    else:
        signs = {"Add": "+", "Subtract": "-", "Multiply by": "*"}
        first = re.findall(r"\d+", asked)[0]
        steps = [(signs[word], number) for word, number in re.findall(r"(Add|Subtract|Multiply by) (\d+)", asked)]
    value = last(start, played) if played else first
    if len(played) == len(steps):
        return Turn(f"so it is\n#### {value}")
    sign, number = steps[len(played)]
    said = f"({value}){sign}{number}"
    return Turn(f"calc({said})") if plain else Turn("", calls=[Call("calc", {"expression": said})])


def walks(start: Start, played: Played) -> Turn:
    acts = Map.read(start.messages[0]["content"].split("\nYou")[0]).shortest()
    assert acts is not None
    return Turn(acts[len(played)])


def books(start: Start, played: Played) -> Turn:
    told = dict(pair for _, step in played for pair in re.findall(r"(\w+): (\w+)", step.messages[0]["content"]))
    wanted = [slot for slot in SLOTS if slot not in told]
    return Turn(f"which {wanted[0]}?" if wanted else f"book {' '.join(f'{slot}={value}' for slot, value in told.items())}")


def queries(config: SqlConfig, number: int) -> Policy:
    task = task_of(row(number), config)

    def policy(start: Start, played: Played) -> Turn:
        if not played:
            return Turn("", calls=[Call("query", {"sql": task.query})])
        return Turn(f"#### {last(start, played).splitlines()[-1]}")

    return policy


def episodes(config: EnvironmentConfig, policy: Policy, count: int = 30) -> list[list[Step]]:
    return [play(config, policy, row(number)) for number in range(count)]


def test_halving_finds_a_number_and_chance_does_as_often_as_it_must() -> None:
    config = GuessConfig(max_turns=4)
    found = [play(config, halve, {"secret": secret}) for secret in range(10)]
    assert all(steps[-1].info["correct"] and paid(steps) == 1 for steps in found)
    assert sum(map(len, found)) / 10 == 2.9
    assert right(config, chance("0123456789"), 400) == pytest.approx(1 - 0.9**4, abs=0.07)


def test_halving_finds_one_of_sixteen_things_in_five_turns() -> None:
    config = TwentyConfig(max_turns=8)
    found = episodes(config, asks_for_halves)
    assert all(len(steps) <= 5 and steps[-1].info["correct"] and paid(steps) == 1 - len(steps) for steps in found)
    names = [f"is {name}?" for name in "abcdefghijklmnop"]
    assert right(config, chance(names), 300) == pytest.approx(1 - (15 / 16) ** 8, abs=0.1)


@pytest.mark.parametrize("config", [CONFIGS[2], CONFIGS[3]], ids=["hermes", "plain"])
def test_with_the_calculator_chains_are_worked_out_and_chance_does_not(config: CalculatorConfig) -> None:
    found = episodes(config, calculates)
    assert all(steps[-1].info["correct"] and paid(steps) == 1 for steps in found)
    assert {len(steps) for steps in found} == {3, 4}
    assert right(config, chance([f"#### {number}" for number in range(100)]), 100) <= 0.05
    dear = config.model_copy(update={"cost": 0.25})
    assert all(paid(steps) == 1 - 0.25 * (len(steps) - 1) for steps in episodes(dear, calculates, 5))


def test_a_map_is_walked_to_its_goal_and_chance_is_lost_in_it() -> None:
    config = GridConfig(max_turns=14)
    found = episodes(config, walks)
    assert all(steps[-1].info["correct"] and paid(steps) == pytest.approx(1.2) for steps in found)
    assert right(config, chance(["n", "e", "s", "w", "take"]), 100) <= 0.05
    assert play(config, walks, {"map": "S.KDG"})[-1].info["correct"]


def test_a_door_is_closed_to_who_has_no_key_and_a_key_is_paid_once() -> None:
    config = GridConfig(max_turns=9)
    acts = iter(["e", "take", "w", "take", "take", "e", "e", "go e", "e"])
    steps = play(config, lambda start, played: Turn(next(acts)), {"map": "KSDG"})
    told = [step.messages[0]["content"] for step in steps[:-1]]
    assert told == ["2,1 -", "2,1 -", "1,1 -", "1,1 K", "1,1 K", "2,1 K", "3,1 K"]
    assert [step.reward for step in steps] == [0, 0, 0, 0.2, 0, 0, 0, 1]


@pytest.mark.parametrize("text", ["", "S.\nG", "SS\nGG", "S?G", "S..", "SGKK"])
def test_a_map_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a map has"):
        play(GridConfig(max_turns=5), chance("n"), {"map": text})


def test_the_gold_query_answers_and_chance_does_not() -> None:
    config = SqlConfig(max_turns=5, format="hermes")
    found = [play(config, queries(config, number), row(number)) for number in range(20)]
    assert all(len(steps) == 2 and steps[-1].info["correct"] and paid(steps) == 1 for steps in found)
    assert len({task_of(row(number), config).query.split("'")[0] for number in range(20)}) > 3
    assert right(config, chance([f"#### {number}" for number in range(200)]), 60) <= 0.1


def test_a_table_is_booked_as_the_user_wants_it_at_last() -> None:
    config = UserConfig(max_turns=10)
    found = episodes(config, books)
    assert all(len(steps) == 5 and steps[-1].info["correct"] and paid(steps) == 1 for steps in found)
    first = [f"book {' '.join(f'{slot}={values[0]}' for slot, values in SLOTS.items())}", *(f"{slot}?" for slot in SLOTS)]
    assert right(config, chance(first), 100) <= 0.05


def test_the_user_changes_one_thing_once_and_is_asked_again_at_a_price() -> None:
    config = UserConfig(max_turns=10)
    twice = [slot for slot in SLOTS for _ in range(2)]
    for number in range(10):
        steps = play(config, lambda start, played: Turn(twice[len(played) % 8]), row(number))
        texts = [step.messages[0]["content"] for step in steps]
        assert sum("No, " in text for text in texts) == 1
        assert [step.reward for step in steps[:8]] == [0.0, -0.1] * 4


def test_the_user_leaves_after_three_useless_turns() -> None:
    steps = play(UserConfig(max_turns=10), chance(["hm", "well"]), row(0))
    assert len(steps) == 3 and steps[-1].done and not steps[-1].info["correct"]


@pytest.mark.parametrize("config", CONFIGS[1:], ids=lambda config: config.name)
def test_splits_have_no_task_in_common(config: EnvironmentConfig) -> None:
    def shown(columns: dict[str, Any]) -> str:
        environment: Any = config.build()()
        start = asyncio.run(environment.reset(columns, 0))
        task: Any = getattr(environment, "_task", None) or getattr(environment, "_database", None)
        rows = [*task._connection.execute("SELECT * FROM sales")] if hasattr(task, "_connection") else task
        return f"{start.messages} {rows if config.name != 'twenty' else ''}"

    tasks = {split: {shown(row(number, split, seed)) for number in range(25) for seed in (0, 1)} for split in SPLITS}
    assert all(len(found) > 45 for found in tasks.values())
    assert len(set[str]().union(*tasks.values())) == sum(map(len, tasks.values()))


def test_a_row_without_a_task_and_a_split_that_is_none_are_refused() -> None:
    with pytest.raises(ValueError, match="the row has no split"):
        play(TwentyConfig(max_turns=2), chance("a"), {"seed": 1})
    with pytest.raises(ValueError, match="no task of the split 'ood'"):
        play(TwentyConfig(max_turns=2, bits=1, others=0), chance("a"), row(0, "ood"))


ODD = ("", " ", "\0", "é" * 10_000, "####", "#### ", "book", "book =", "has 9?", "is z?", "-", "calc(", "calc()", "go", "²",
       "calc(" * 10_000, "9" * 10_000, "#### " + "9" * 10_000, "<|im_end|>", "{0}", "%s", "[[", "\n" * 10_000)  # fmt: skip
CALLS = (
    Call("", fault="it is cut off"),
    Call("<|end|>" * 100),
    Call("calc", {"x" * 10_000: 1}),
    Call("calc", {"expression": "9" * 10_000}),
    Call("calc", {"expression": "(" * 250}),
    Call("query", {"sql": None}),
    Call("query", {"sql": "\0"}),
)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_odd_texts_and_calls_are_answered_and_paid_nothing(config: EnvironmentConfig) -> None:
    turns = [Turn(text) for text in ODD] + (
        [Turn("", calls=[call, call]) for call in CALLS] if config.format != "none" else []
    )
    for turn in turns:
        steps = play(config, lambda start, played, turn=turn: turn, row(0))
        assert paid(steps) <= 0 and not steps[-1].info["correct"]
        assert all(step.done or len(step.messages) == max(1, len(turn.calls)) for step in steps)
        assert all(len(message["content"]) < 500 for step in steps for message in step.messages)


def test_a_limit_that_no_policy_can_keep_is_refused() -> None:
    with pytest.raises(ValidationError, match="a map of size 9 takes 9 turns: max_turns is smaller, 8"):
        GridConfig(max_turns=8, size=9)
    assert play(GridConfig(max_turns=4, size=3), walks, row(0))[-1].info["correct"]
    with pytest.raises(ValidationError, match="4 things are asked for before"):
        UserConfig(max_turns=4)


@pytest.mark.parametrize(
    ("question", "why"),
    [
        ("{map} {wall}", r"there is no field \{wall\}, but \{map\}"),
        ("go", r"it lacks \{map\}"),
        ("{map:>99}", "have no format"),
        ("{map", r"write \{\{ and \}\} for braces"),
    ],
)
def test_a_template_with_other_fields_or_none_is_refused(question: str, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        GridConfig(max_turns=14, question=question)
    assert UserConfig(max_turns=10, question="{{a table}}").question == "{{a table}}"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_an_episode_is_a_function_of_its_row(config: EnvironmentConfig) -> None:
    def transcript(columns: dict[str, Any]) -> str:
        texts = ["1", "n", "e", "take", "has 1?", "is b?", "day?", "people?", "calc(3*4)", "#### 3"]
        steps = play(config, chance(texts, columns["number"]), columns)
        environment = config.build()()
        return f"{asyncio.run(environment.reset(columns, 0))} {steps}"

    rows = [row(number) for number in range(6)]
    assert [transcript(one) for one in rows] == [transcript(one) for one in reversed(rows)][::-1]


def test_all_environments_are_here() -> None:
    assert {config.name for config in CONFIGS} | {"echo", "class", "openenv", "verifiers", "python"} == set(KIND.members)
    assert [name for name, member in KIND.members.items() if not (member.says_right and member.makes_tasks)] == ["echo"]
