"""Engines that sample completions: token ids in, token ids and their log-probs out."""
