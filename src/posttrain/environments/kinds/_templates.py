"""Templates of what an environment says: which fields each has."""

from __future__ import annotations

import string

from pydantic import AfterValidator


def fields(*names: str) -> AfterValidator:
    """Refuses a template with other fields than these."""

    def known(template: str) -> str:
        for _, name, _, _ in string.Formatter().parse(template):
            if name is not None and name not in names:
                raise ValueError(f"there is no field {{{name}}}, but {', '.join(f'{{{one}}}' for one in names)}")
        return template

    return AfterValidator(known)
