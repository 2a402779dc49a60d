"""Secrets that a recipe or a message may carry, taken out before anything is written or printed. No torch here."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

HIDDEN = "[hidden]"
NAME = re.compile(r"(^|[_-])(token|secret|password|passwd|credentials?|api_?key|access_?key|private_?key)$", re.IGNORECASE)
"""Keys whose text is a secret."""
VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{12,})|(?<=://)[^/\s@]+(?=@)"
)
"""Tokens of Hugging Face, OpenAI and its like, GitHub, GitLab, Slack and AWS; and a user or password in an address."""
SECRET_LENGTH = 8  # characters of a variable's value, at least: shorter ones stand in ordinary words


def redacted(values: Any) -> Any:
    """The same values without secrets."""
    if isinstance(values, dict):
        return {
            key: HIDDEN if value and not isinstance(value, bool | int) and NAME.search(str(key)) else redacted(value)
            for key, value in values.items()
        }
    if isinstance(values, list):
        return [redacted(value) for value in values]
    return VALUE.sub(HIDDEN, values) if isinstance(values, str) else values


def shareable(text: str) -> str:
    """A text for files that people hand on: also without the values of variables of the environment whose names are those of
    secrets, and with `~` for the home folder.
    """
    for name, value in os.environ.items():
        if len(value) >= SECRET_LENGTH and NAME.search(name):
            for written in (
                value,
                json.dumps(value)[1:-1],
                json.dumps(value, ensure_ascii=False)[1:-1],
                value.replace("'", "''"),
            ):
                text = text.replace(written, HIDDEN)
    home = str(Path.home())
    return redacted(re.sub(rf"{re.escape(home)}(?=/|\b)", "~", text) if len(home) > 1 else text)
