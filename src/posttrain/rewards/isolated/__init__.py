"""Rewards and graders in processes of their own, with a deadline."""
