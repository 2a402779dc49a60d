"""What the command says of itself: its version, and what a shell may complete."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest

from recipes import Command


def test_version(posttrain: Command) -> None:
    assert posttrain("--version") == (0, f"posttrain {version('posttrain')}\n", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("posttrain va", "validate"),
        ("posttrain run quickstart --dry", "--dry-run"),
        ("posttrain run a.yaml algorithm.name=sft --all", "--allow-code"),
    ],
)
def test_a_shell_completes_commands_and_options(
    words: str, expected: str, posttrain: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"": "complete_bash", "WORDS": words, "CWORD": str(len(words.split()) - 1)}.items():
        monkeypatch.setenv(f"COMP_{name}" if name else "_POSTTRAIN_COMPLETE", value)
    code, out, err = posttrain()
    assert (code, err) == (0, "") and expected in out.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_of_a_shell_is_shown(
    shell: str, posttrain: Command, monkeypatch: pytest.MonkeyPatch, made_commands: Any
) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    monkeypatch.setattr("typer.main.get_command", made_commands.__wrapped__)  # which reads that as it is made
    code, out, err = posttrain("--show-completion", shell)
    assert (code, err) == (0, "") and f"complete_{shell}" in out and "_POSTTRAIN_COMPLETE" in out
