"""Algorithms that train on demonstrations."""
