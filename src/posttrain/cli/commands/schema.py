"""`posttrain schema`: what a recipe may say, for editors."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from posttrain.recipe import Recipe

    print(json.dumps(Recipe.model_json_schema(), indent=2))
