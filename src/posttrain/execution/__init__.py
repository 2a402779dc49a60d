"""A recipe, start to end, in its folder."""
