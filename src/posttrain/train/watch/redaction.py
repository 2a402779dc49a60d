"""Secrets that a recipe or a message may carry, taken out before anything is written, printed or sent. No torch here."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

HIDDEN = "[hidden]"
NAME = re.compile(r"(^|[_-])(token|secret|password|passwd|credentials?|api_?key|access_?key|private_?key)$", re.IGNORECASE)
"""Keys whose text is a secret."""
VALUE = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{12,})|(?<=://)[^/\s@]+(?=@)"
)
"""Tokens of Hugging Face, OpenAI and its like, GitHub, GitLab, Slack and AWS; and a user or password in an address."""
QUERY = re.compile(r"([?&][\w.-]*(?:token|secret|password|signature|sig|api_?key|access_?key)=)[^&#\s'\"]+", re.IGNORECASE)
"""What follows the mark of an address: a token, or a signature that opens it."""
SECRET_LENGTH = 8  # characters of a variable's value, at least: shorter ones stand in ordinary words


def redacted(values: Any) -> Any:
    """The same values without secrets."""
    if isinstance(values, str):
        return QUERY.sub(rf"\1{HIDDEN}", VALUE.sub(HIDDEN, values))
    return _within(values, redacted)


def shareable(values: Any) -> Any:
    """The same for what people hand on: also without the values of variables of the environment whose names are those of
    secrets, and with `~` for the home folder.
    """
    if not isinstance(values, str):
        return _within(values, shareable)
    for secret in _of_environment():
        values = values.replace(secret, HIDDEN)
    given = os.path.expanduser("~")
    for home in {given, os.path.realpath(given)}:
        if len(home) > 1 and os.path.isabs(given):  # of a user without a home it is "~"
            values = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w-]|\.\w)", "~", values)
    return redacted(values)


def _within(values: Any, hide: Any) -> Any:
    if isinstance(values, dict):
        return {
            key: HIDDEN if value and not isinstance(value, bool | int) and NAME.search(str(key)) else hide(value)
            for key, value in values.items()
        }
    return [hide(value) for value in values] if isinstance(values, list) else values


def _of_environment() -> Iterator[str]:
    """Each secret as it is, and as JSON and YAML write it."""
    for name, value in os.environ.items():
        if len(value) >= SECRET_LENGTH and NAME.search(name):
            yield from (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], value.replace("'", "''"))
