"""Environments of the user's code, in processes of their own."""
