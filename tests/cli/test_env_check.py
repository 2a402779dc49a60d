"""`posttrain env check`: what it prints, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from posttrain.settings.doors import kinds

Command = Callable[..., tuple[int, str, str]]


def test_a_built_in_environment_passes(posttrain: Command) -> None:
    code, out, err = posttrain("env", "check", "sql", "--set", "format=hermes", "--set", "max_turns=4")
    assert (code, err) == (0, "") and "hostile" in out
    assert "sql: the same episodes in another order and at once, and none failed." in out


def test_an_environment_that_fails_is_told_with_its_turn_and_exit_code(
    posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = EntryPoint("own", "environments.test_trial:Own", "posttrain.environments")
    monkeypatch.setattr(kinds, "entry_points", lambda group: [point] if group == point.group else [])
    code, out, err = posttrain("env", "check", "own")
    assert code == 7 and "random: episode 0: at its beginning: raised TypeError: 'NoneType' object is not callable" in out
    assert "env check own: it fails, or is no function of its rows" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "gues"], "gues is unknown; did you mean guess?"),
        (["check", "guess", "--set", "size=1"], "--set size=1: size: input should be greater than or equal to 2"),
        (["check", "guess", "--set", "sizes=3"], "--set sizes=3: sizes: unknown key"),
        (["check", "grid", "--set", "size=12"], "a map of size 12 takes 12 turns: max_turns is smaller, 8"),
        (
            ["check", "class", "--set", "path=environments.hostile:Counts"],
            "environments.hostile:Counts. Who trusts it says --allow-code",
        ),
        (["play", "guess"], "'play'"),
    ],
)
def test_what_is_wrong_with_the_options_is_said(posttrain: Command, arguments: list[str], said: str) -> None:
    code, out, err = posttrain("env", *arguments)
    assert code == 2 and said in err and out == ""
