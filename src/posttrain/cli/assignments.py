"""`key=value` without --set, which people type who come from other tools: answered with what was meant."""

from __future__ import annotations

import re
from typing import Any

from typer.core import TyperCommand

from posttrain.errors import RecipeError

ASSIGNMENT = re.compile(r"-{0,2}\+{0,2}[A-Za-z_]\w*(\.\w+)+=.*|[A-Za-z_]\w*=.*", re.DOTALL)
VALUED = re.compile(r"--[a-z-]+")


class TakesOverrides(TyperCommand):
    """A command whose recipe is overridden by --set."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click.

        Raises:
            RecipeError: an argument would be an override, had it --set before it.
        """
        for before, argument in zip(["", *args], args, strict=False):
            if not ctx.resilient_parsing and ASSIGNMENT.fullmatch(argument) and not VALUED.fullmatch(before):
                raise RecipeError(f"{argument}: an override is given by --set: --set {argument.lstrip('-+')}")
        return super().parse_args(ctx, args)
