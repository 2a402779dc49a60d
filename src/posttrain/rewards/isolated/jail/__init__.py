"""A jail for programs that a model wrote: nothing is read, written, sent or left behind, and everything is bounded."""
