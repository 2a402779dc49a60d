"""The recipe: all keys of a run together, checked before torch is imported."""

from posttrain.recipe.recipe import Recipe, load_recipe, read_recipe

__all__ = ["Recipe", "load_recipe", "read_recipe"]
