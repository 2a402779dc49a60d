"""Adapters (peft) in a recipe: the kinds, one line for each, and their options. No torch or peft here."""
