"""From text and messages to token ids with a loss mask: one path for what is trained and for what is asked."""
