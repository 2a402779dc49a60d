"""A language model: loaded, tried, read, scored, saved."""
