"""What an optimizer step trains on: demonstrations, pairs, rollouts, both."""
