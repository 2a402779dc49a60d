"""What of transformers' own trainer a recipe may set."""
