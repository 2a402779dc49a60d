"""Rows that are conversations with an environment."""
