"""What math-verify is asked in a process of its own: how answers are written, read as formulas, and compared."""
