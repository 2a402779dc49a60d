"""The switches of how the same numbers are made. Each has a fast value, the default, and plainer ones that it equals."""

from __future__ import annotations

from typing import Literal

HeadPath = Literal["one_pass", "two_pass", "whole"]
"""one_pass: scores and gradients of a row of logits while it is there, for algorithms of token scope; two_pass: the backward
pass makes the logits again, as others always do; whole: the model's own logits, all at once."""
RowLayout = Literal["shared", "packed", "padded"]
"""shared: one row without padding, and a prompt once for all of its answers; packed: one row without padding; padded: a row
for each completion."""
