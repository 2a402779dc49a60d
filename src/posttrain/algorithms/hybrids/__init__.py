"""Algorithms that train on rollouts and demonstrations."""
