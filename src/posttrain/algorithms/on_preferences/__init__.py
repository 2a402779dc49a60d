"""Algorithms that train on preferences between completions."""
