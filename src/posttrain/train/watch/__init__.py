"""What is measured and written while a model trains."""
