"""Collections that are made beside training, by a process of their own, from weights of before."""
