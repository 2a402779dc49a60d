"""Sentences are told once, and kept for whoever runs."""

import logging

import pytest

from posttrain.telling import Told, hearing, tell


def test_once_while_heard(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "posttrain"), hearing() as heard:
        tell("a-rule", "It is so.")
        with hearing() as inner:
            tell("a-rule", "It is so.", step=3)
            tell("a-rule", "It is otherwise.", step=4)
            tell("a-rule", "It is otherwise.", step=5)
    assert heard == [Told("a-rule", "It is so."), Told("a-rule", "It is otherwise.", 4)]
    assert inner == [Told("a-rule", "It is so.", 3), Told("a-rule", "It is otherwise.", 4)]
    assert [record.message for record in caplog.records] == ["It is so.", "It is otherwise."]


def test_what_is_heard_is_handed_on_when_it_is_told() -> None:
    handed: list[Told] = []
    with hearing(handed.append):
        tell("a-rule", "It is so.")
        assert handed == [Told("a-rule", "It is so.")]
        tell("a-rule", "It is so.")
    tell("a-rule", "It is otherwise.")
    assert len(handed) == 1


def test_each_time_outside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "posttrain"):
        tell("a-rule", "It is so.")
        tell("a-rule", "It is so.")
    assert len(caplog.records) == 2
