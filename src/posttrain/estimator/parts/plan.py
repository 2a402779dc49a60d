"""What is sampled for a question, before generation: `(question, n, progress, rng) -> requests`."""

from __future__ import annotations

import math
from functools import partial
from random import Random

from posttrain.estimator.batch import Question, Request


def plain(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
    """n completions of the prompt; nothing for an algorithm without rollouts."""
    return [Request(question.prompt, n=n, question=question.id)] if n else []


def beside_greedy(question: Question, n: int, progress: float, rng: Random) -> list[Request]:
    """n completions of the prompt, and the most probable one, which is their baseline (ReMax, arXiv:2310.10505)."""
    greedy = Request(question.prompt, question=question.id, temperature=0.0)
    return [*plain(question, n, progress, rng), greedy]


def continued(
    question: Question, n: int, progress: float, rng: Random, *, start: float, end: float, high: float
) -> list[Request]:
    """n - 1 plain completions, and one that continues a demonstration's first tokens; n plain ones without a demonstration.

    low = end + (start - end) (1 + cos(pi · progress)) / 2,   share ~ U(low, high),   L = int(share · |y*|), in [1, |y*| - 1]

    (Prefix-RFT, arXiv:2507.01679.) The cut is between token ids.
    """
    plain = partial(Request, question.prompt, question=question.id)
    other = -1 - question.id  # other samples than those of the plain ones
    demonstration = question.demonstration
    if demonstration is None or len(demonstration) < 2:
        return [plain(n=n)]
    low = end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
    length = int(rng.uniform(min(low, high), high) * len(demonstration))
    length = min(max(length, 1), len(demonstration) - 1)
    return [plain(n=n - 1), Request(question.prompt, tuple(demonstration[:length]), question=other)]
