"""Adapters (peft) on a model: made or gone on with, added to the weights, written to a folder."""
