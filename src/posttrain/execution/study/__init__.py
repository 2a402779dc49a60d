"""Comparisons: a matrix of start models, algorithms and seeds from one YAML, and one table of their results."""
