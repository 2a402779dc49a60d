"""A run's folder: what lies in it, who may write there, what is kept."""
