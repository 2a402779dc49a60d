"""The training loop: what a step trains on, its losses, checkpoints and records."""
