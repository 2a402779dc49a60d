"""Proofs, cheap enough for every run: it starts from what was asked for, and what is saved is what was trained."""
