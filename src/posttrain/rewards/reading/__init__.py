"""What a completion says, read: its answer, and its calls of tools."""
