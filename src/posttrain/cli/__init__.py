"""The command line: what a person types and sees."""

from posttrain.cli.app import main

__all__ = ["main"]
