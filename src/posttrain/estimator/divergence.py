"""How two distributions over the vocabulary are compared, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DivergenceName = Literal["kl", "reverse_kl", "jsd"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Of p, the policy, and q, the frozen model that it is compared with, both of logits divided by `temperature` once more.

    kl: KL(q || p). reverse_kl: KL(p || q).
    jsd: beta · KL(q || m) + (1 - beta) · KL(p || m), m = beta · q + (1 - beta) · p (arXiv:2306.13649, eq. 1), 0 < beta < 1.

    Raises:
        ValueError: beta or temperature is out of its range.
    """

    name: DivergenceName = "kl"
    beta: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta < 1:
            raise ValueError(f"beta is {self.beta:g}, and must lie between 0 and 1: there jsd is 0; take kl, or reverse_kl")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature:g}, and must be above 0")
