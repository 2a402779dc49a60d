"""Verdicts on answers, kept apart from the run: what they do cannot hurt it."""
