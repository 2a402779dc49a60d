"""Algorithms that learn from a teacher."""
