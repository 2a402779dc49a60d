"""Algorithms that train on completions that each stand under each of several principles."""
