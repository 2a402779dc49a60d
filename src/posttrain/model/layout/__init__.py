"""How rows are laid out for a forward pass; every layout gives the same numbers."""
