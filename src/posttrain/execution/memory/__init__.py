"""What a run takes of its device's memory, by formulas."""
