"""Sequences of tasks: a study whose runs train on one after another, and what each stage keeps and carries over."""
