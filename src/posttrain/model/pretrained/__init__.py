"""Models and tokenizers that are read by name or from a folder."""
