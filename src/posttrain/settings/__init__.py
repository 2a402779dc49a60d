"""What all configs share, and the keys of a recipe that have no kinds. No torch here."""
