"""Episodes that are played before training: what is kept of them, by the ids that were sampled."""
