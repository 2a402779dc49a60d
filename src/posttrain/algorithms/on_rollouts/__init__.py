"""Algorithms that train on rollouts."""
