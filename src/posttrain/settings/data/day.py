"""The day that chat templates write where nobody names one."""

from __future__ import annotations

import datetime
from functools import cache


@cache
def today() -> datetime.date:
    """The day on which this process first asked."""
    return datetime.date.today()
