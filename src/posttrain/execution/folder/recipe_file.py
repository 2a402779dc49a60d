"""`recipe.yaml` of a run's folder, read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe one; by libyaml, where PyYAML was built with it: ten times as fast, and a run's recipe is read several times."""


def kept_values(folder: Path, *, errors: str = "strict") -> Any:
    """What the folder's `recipe.yaml` says.

    Args:
        folder: of a run, or of a stage.
        errors: what is done about bytes that are no UTF-8, as `open` takes it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no UTF-8, or a value in it is none.
        yaml.YAMLError: it is no YAML.
    """
    loader = LOADER((folder / "recipe.yaml").read_text(encoding="utf-8", errors=errors))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
