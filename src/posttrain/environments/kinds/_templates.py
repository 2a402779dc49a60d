"""Templates of what an environment says: which fields each has, and must have."""

from __future__ import annotations

import string

from pydantic import AfterValidator


def fields(*names: str, needed: bool = False) -> AfterValidator:
    """Refuses a template with other fields than these; and where they are needed, one without them."""

    def known(template: str) -> str:
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces") from None
        there = {name for _, name, _, _ in parts if name is not None}
        listed = ", ".join(f"{{{name}}}" for name in names)
        if others := sorted(there - {*names}):
            raise ValueError(f"there is no field {{{others[0]}}}, but {listed}; write {{{{ and }}}} for braces")
        if any(form or conversion for _, _, form, conversion in parts):
            raise ValueError("its fields have no format")
        if needed and not there:
            raise ValueError(f"it lacks {listed}, without which the policy is not told its task")
        return template

    return AfterValidator(known)
