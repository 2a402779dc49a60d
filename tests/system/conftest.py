"""The trainer over the tiny model."""

from trainers import make_trainer

__all__ = ["make_trainer"]
