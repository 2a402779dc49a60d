"""What can go wrong, and the exit code that the command line ends with. A message says what, where, and what to do next."""

from __future__ import annotations


class PosttrainError(Exception):
    """Base of all errors that are told to the user without a traceback."""

    exit_code = 1
    label = "error"


class RecipeError(PosttrainError, ValueError):
    """The recipe, or an option, is wrong."""

    exit_code = 2


class DataError(PosttrainError):
    """The data cannot be read, or nothing usable is in it."""

    exit_code = 3


class SetupError(PosttrainError):
    """A model, a tokenizer, a package or a device is missing or broken."""

    exit_code = 4


class NonFiniteError(PosttrainError):
    """A loss, a log-prob or a gradient is NaN or infinite."""

    exit_code = 5


class EngineError(PosttrainError):
    """A rollout engine died, hangs, refused a request, or does not sample from the trainer's weights."""

    exit_code = 6


class RewardError(PosttrainError):
    """A reward fails more often than it may."""

    exit_code = 7


class CheckpointError(PosttrainError):
    """A checkpoint, or the folder of a run, does not fit what is asked of it."""

    exit_code = 8


class Interrupted(BaseException):
    """A signal asked the run to end before it was done; the same command goes on. Nobody catches it by accident.

    together: all processes of the run end so, at the same place, and can wait for each other.
    """

    exit_code = 75
    label = "interrupted"

    def __init__(self, message: str, *, together: bool = False) -> None:
        super().__init__(message)
        self.together = together
