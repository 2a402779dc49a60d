"""The only module that imports TRL: its chat templates with marked assistant turns, for templates that have no marks."""

from __future__ import annotations

import os
from typing import Any


def training_chat_template(tokenizer: Any) -> str | None:
    """A template with `{% generation %}` marks that renders what the tokenizer's own does, or None where TRL has none."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        from trl.chat_template_utils import get_training_chat_template
    except ImportError:
        return None
    try:
        return get_training_chat_template(tokenizer)
    except ValueError:
        return None
