"""Collectors over another one: what they make of its rollouts, and what they put beside them."""
