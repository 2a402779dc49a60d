"""Secrets do not reach files or the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.train.watch.redaction import HIDDEN, redacted, shareable

FAKE = "hf_" + "AbCd1234" * 4


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            {"hub_token": "x", "push": {"api_key": "y", "password": "z"}},
            {"hub_token": HIDDEN, "push": {"api_key": HIDDEN, "password": HIDDEN}},
        ),
        ({"max_tokens": 8, "tokens": 3, "tokenizer": "bytes", "key": "a", "num_key_value_heads": 2}, None),
        ({"note": f"with {FAKE}, and more"}, {"note": f"with {HIDDEN}, and more"}),
        (["sk-" + "a" * 24, "ghp_" + "b" * 24, "AKIA" + "C" * 16], [HIDDEN] * 3),
        ("https://me:secret@host.org/path", f"https://{HIDDEN}@host.org/path"),
        ("http://127.0.0.1:8000/v1", None),
        ("https://host/x?a=b&X-Amz-Signature=0f&page=2#top", f"https://host/x?a=b&X-Amz-Signature={HIDDEN}&page=2#top"),
        ("a mask-and-ask-for-more-than-this, hf_short", None),
        (None, None),
        (3.5, 3.5),
    ],
)
def test_what_is_hidden(values: Any, expected: Any) -> None:
    assert redacted(values) == (values if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me", "~"),
        ("in /home/me/runs. /home/me.", "in ~/runs. ~."),
        ("/home/me-too /home/me.bak /home/meadow /srv/home/me", None),
        ({"a": ["/home/me/x", 3], "api_key": "y"}, {"a": ["~/x", 3], "api_key": HIDDEN}),
        ("it is long-enough, and long", f"it is {HIDDEN}, and long"),
    ],
)
def test_what_is_handed_on_has_no_home_folder_and_no_secret_of_the_environment(
    text: Any, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"HOME": "/home/me", "OUR_TOKEN": "long-enough", "SHORT_TOKEN": "long"}.items():
        monkeypatch.setenv(name, value)
    assert shareable(text) == (text if expected is None else expected)
