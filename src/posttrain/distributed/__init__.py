"""Several processes: how the model is spread over them, how they start, and what they tell each other."""
