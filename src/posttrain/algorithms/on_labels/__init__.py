"""Algorithms that train on single completions with a label: wanted, or not."""
