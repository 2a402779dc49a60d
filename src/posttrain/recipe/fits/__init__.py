"""What must go together in a recipe, beside what the algorithm needs."""
