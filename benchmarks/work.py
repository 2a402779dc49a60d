"""How many floating-point operations a step cannot do without: its matrix products and attention, forward and backward.

A prompt counts once for all its answers, a position of the output layer where it carries loss, attention where a token sees
another. Norms, activations and whatever is computed again count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from models import Spec
from rows import Document, Group


def of_documents(spec: Spec, documents: Sequence[Document]) -> float:
    """Of an SFT step."""
    lengths = [len(each.prompt) + len(each.completion) for each in documents]
    return _of(spec, sum(lengths), sum(n * n / 2 for n in lengths), sum(len(each.completion) for each in documents))


def of_groups(spec: Spec, groups: Sequence[Group]) -> float:
    """Of an update on answers to shared prompts."""
    answers = [(len(group.prompt), len(answer)) for group in groups for answer in group.answers]
    prompts = [len(group.prompt) for group in groups]
    scored = sum(n for _, n in answers)
    pairs = sum(p * p / 2 for p in prompts) + sum(n * p + n * n / 2 for p, n in answers)
    return _of(spec, sum(prompts) + scored, pairs, scored)


def _of(spec: Spec, tokens: int, pairs: float, scored: int) -> float:
    """tokens: that the layers read. pairs: of a token and one that it sees. scored: positions with loss."""
    keys = spec.hidden * spec.kv_heads // spec.heads
    matrices = spec.hidden * (2 * spec.hidden + 2 * keys + 3 * spec.intermediate)
    layers = spec.layers * (6 * matrices * tokens + 12 * spec.hidden * pairs)
    return layers + 6 * spec.hidden * spec.vocabulary * scored
