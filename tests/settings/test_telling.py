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
        assert inner is heard
    assert heard == [Told("a-rule", "It is so."), Told("a-rule", "It is otherwise.", 4)]
    assert [record.message for record in caplog.records] == ["It is so.", "It is otherwise."]


def test_each_time_outside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "posttrain"):
        tell("a-rule", "It is so.")
        tell("a-rule", "It is so.")
    assert len(caplog.records) == 2
